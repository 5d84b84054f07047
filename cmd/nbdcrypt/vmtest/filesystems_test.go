//go:build vm

package vmtest

import (
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// filesystems is a library of the guest's shell: functions that use a device as people do, with a file system of each KIND.
const filesystems = `
# make DEVICE KIND...: partitions, file systems, files. Some files are to be deleted.
make() {
	device=$1
	shift
	(echo label: gpt; for kind; do echo size=304M; done) | sfdisk -q "$device"
	for kind; do
		until [ -b "$(partition "$kind")" ]; do sleep 0.1; done
		case $kind in
		ext4) mkfs.ext4 -q -E lazy_itable_init=0 "$(partition ext4)";; # what is initialized later would be counted as written
		xfs) mkfs.xfs -q --unsupported -l size=10m "$(partition xfs)";; # 64 MiB of zeros, the usual log, take long under emulation
		esac
		mkdir -p "/mnt/$kind"
		mount "$(partition "$kind")" "/mnt/$kind"
		cd "/mnt/$kind"
		dd if=/dev/urandom of=large bs=1M count=2 conv=fsync status=none
		dd if=/dev/urandom of=deleted bs=1M count=8 conv=fsync status=none
		mkdir many
		split -b 60001 large many/
		sync -f .
		cd /
	done
}
partition() { case $1 in ext4) echo "${device}p1";; xfs) echo "${device}p2";; esac; }
# trim KIND...: what is deleted is given back, once it is committed that it is.
trim() {
	for kind; do
		rm "/mnt/$kind/deleted"
		sync -f "/mnt/$kind"
		fstrim "/mnt/$kind"
		sync -f "/mnt/$kind"
	done
}
sums() { cd /mnt; find "$@" -type f -exec sha256sum {} + | sort -k 2; }
leave() { for kind; do umount "/mnt/$kind"; done; }
# again DEVICE KIND...: the file systems have nothing to mend; they are mounted once more.
again() {
	device=$1
	shift
	for kind; do
		until [ -b "$(partition "$kind")" ]; do sleep 0.1; done
		case $kind in
		ext4) e2fsck -f -n "$(partition ext4)";;
		xfs) xfs_repair -n "$(partition xfs)" 2>&1;;
		esac
		mount "$(partition "$kind")" "/mnt/$kind"
	done
}
`

// useFilesystems goes through the life of file systems on a disk: of ext4, or of "ext4 xfs". connect is a script whose last line is the device that it
// made of the disk, disconnect undoes it, for the daemon too.
func useFilesystems(t *testing.T, m *machine.Machine, disk, kinds, connect, disconnect string) {
	t.Helper()
	m.Put("/lib/filesystems.sh", []byte(filesystems), 0o644)
	in := func(script string) string { t.Helper(); return m.Run(". /lib/filesystems.sh\n" + script) }
	in("make " + lastLine(in(connect)) + " " + kinds)
	full := written(t, m, disk)
	in("trim " + kinds)
	if trimmed := written(t, m, disk); trimmed > full-7<<20*int64(len(strings.Fields(kinds))) {
		t.Errorf("%s: %d bytes were written, %d are left after 8 MiB of each file system were trimmed", disk, full, trimmed)
	}
	want := in("sums " + kinds)
	in("leave " + kinds + "\n" + disconnect)
	in("again " + lastLine(in(connect)) + " " + kinds)
	got := in("sums " + kinds)
	in("leave " + kinds + "\n" + disconnect)
	files := strings.Count(got, "\n")
	if got != want || files < 36*len(strings.Fields(kinds)) {
		t.Errorf("%s: other files after the detach: %d files\n%s\nbefore:\n%s", disk, files, got, want)
	}
	tally(t, "file systems, detached and attached", 1, 4<<20*int64(len(strings.Fields(kinds))), 0)
}

// written is how much of a disk takes space, as the daemon says.
func written(t *testing.T, m *machine.Machine, disk string) int64 {
	t.Helper()
	return get[struct{ Space struct{ Written int64 } }](t, m, "disk show "+disk).Space.Written
}

func lastLine(s string) string {
	lines := strings.Split(strings.TrimSpace(s), "\n")
	return lines[len(lines)-1]
}
