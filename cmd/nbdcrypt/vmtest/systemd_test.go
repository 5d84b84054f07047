//go:build vm && long

package vmtest

import (
	"os"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// TestSystemd: under systemd daemon and disks come up at boot, as their units are shipped, one mounted by fstab and one by its attachment; both go
// on when the daemon is restarted; a stop unmounts, disconnects and detaches in this order, so that nothing has to be recovered at the next boot.
func TestSystemd(t *testing.T) {
	t.Parallel()
	boot := withSystemd(t)
	m := boot()
	disksOneAndTwo(m)
	m.Run("head -c 8000000 /dev/urandom >/srv/one/file; cp /srv/one/file /srv/two/; systemctl restart nbdcrypt; cmp /srv/one/file /srv/two/file; echo after >>/srv/one/file; sync")
	m.Run("head -c 8000000 /dev/urandom >/srv/two/late; sha256sum /srv/*/file /srv/two/late >/sums; sync /sums; systemctl poweroff --no-block")
	m.Ended()

	m = boot()
	// nofail: the boot does not wait for it.
	m.Run("for i in $(seq 200); do ! systemctl is-active -q srv-one.mount || break; sleep 0.2; done; systemctl is-active srv-one.mount nbdcrypt-attach@one nbdcrypt-attach@two; grep ' /srv/one ' /proc/mounts; grep ' /srv/two ' /proc/mounts; sha256sum -c /sums")
	for _, bad := range []string{"recovery complete", "I/O error", "recovery required"} {
		if out := m.Run("dmesg"); strings.Contains(out, bad) {
			t.Errorf("the kernel says %q:\n%s", bad, out)
		}
	}
	if out := m.Run("cat /var/log/nbdcrypt*"); strings.Contains(out, "without a detach") || strings.Contains(out, "recovered") {
		t.Errorf("the daemon says %s", out)
	}
	m.Run("systemctl stop srv-one.mount nbdcrypt-attach@one nbdcrypt-attach@two; [ -z \"$(grep /srv/ /proc/mounts)\" ]; [ ! -e /sys/block/nbd0/pid ]; nbdcrypt disk show one | grep available")
	m.Run("systemctl poweroff --no-block")
	m.Ended()
}

// withSystemd makes a root with systemd and our units, and returns what boots it. Disk one is mounted by fstab, disk two by its attachment.
func withSystemd(t *testing.T) (boot func() *machine.Machine) {
	t.Helper()
	root := t.TempDir() + "/root"
	unit := func(name string) machine.File {
		text, err := os.ReadFile("../" + name)
		check(t, err)
		return machine.File{Path: "/etc/systemd/system/" + name, Mode: 0o644, Content: text}
	}
	rules, err := os.ReadFile("../60-nbdcrypt.rules")
	check(t, err)
	file := func(path, text string) machine.File {
		return machine.File{Path: path, Mode: 0o644, Content: []byte(text)}
	}
	const logs = "[Service]\nStandardOutput=append:/var/log/%n\nStandardError=append:/var/log/%n\n"
	check(t, machine.SystemdRoot(root, []machine.File{unit("nbdcrypt.service"), unit("nbdcrypt-attach@.service"),
		file("/etc/systemd/system/nbdcrypt.service.d/10.conf", logs), file("/etc/systemd/system/nbdcrypt-attach@.service.d/10.conf", logs),
		file("/etc/udev/rules.d/60-nbdcrypt.rules", string(rules)),
		file("/srv/one/empty", ""), file("/srv/two/empty", ""),
		file("/etc/systemd/system/multi-user.target.d/10.conf", "[Unit]\nWants=nbdcrypt.service nbdcrypt-attach@one.service nbdcrypt-attach@two.service remote-fs.target\n"),
		file("/etc/nbdcrypt/attach/two.conf", "NBDCRYPT_ATTACH=--mount /srv/two --connections 2\n"),
		file("/etc/fstab", "LABEL=one /srv/one ext4 _netdev,nofail,nosuid,nodev,x-systemd.after=nbdcrypt-attach@one.service 0 0\n")}))
	return func() *machine.Machine {
		m := machine.Start(t, machine.Options{Memory: "768M", Disks: []machine.Disk{{Source: root, Serial: "root", Cache: "unsafe"}}, Append: machine.Systemd})
		m.Run(`for i in $(seq 200); do ! systemctl is-active -q multi-user.target || exit 0; sleep 0.2; done
			systemctl list-jobs; systemctl --failed; tail -n 20 /var/log/nbdcrypt*; dmesg | tail -n 100; exit 1`)
		return m
	}
}

// disksOneAndTwo makes the disks, with file systems, and starts their units.
func disksOneAndTwo(m *machine.Machine) {
	m.Run(`systemctl is-active nbdcrypt; nbdcrypt grant create
		systemctl stop srv-one.mount # it waits for its file system, and would mount it before it is whole
		for disk in one two; do
			nbdcrypt disk create $disk --size 64M --encrypted
			mkfs.ext4 -q -L $disk $(nbdcrypt attach $disk --device auto --json | sed -n 's/.*"device": "\(.*\)".*/\1/p')
			nbdcrypt detach $disk
		done
		systemctl start nbdcrypt-attach@one nbdcrypt-attach@two srv-one.mount
		grep /srv/ /proc/mounts`)
}
