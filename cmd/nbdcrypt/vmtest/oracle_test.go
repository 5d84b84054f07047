//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

// oracle is a library of the guest's shell: dm-crypt under the key that was taken into escrow, over the file that holds a disk's ciphertext.
const oracle = `
# crypt FILE HEXKEY SECTOR [OPTION...]: /dev/mapper/oracle.
crypt() {
	file=$1 key=$2 sector=$3
	shift 3
	echo "$key" | xxd -r -p >/run/key
	[ "$(stat -c %s /run/key)" = 64 ]
	cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512 --key-file /run/key --sector-size "$sector" "$@" "$file" oracle
}
sum() { head -c "$2" "$1" | sha256sum; }
noise() { dd if=/dev/urandom of="$1" bs="$2" count=1 iflag=fullblock conv=notrunc,fsync status=none; }
connect() { nbdcrypt attach "$1" >/dev/null; nbd-client -unix /run/nbdcrypt/nbd.sock -N "$1" /dev/nbd0 -b "$2" >/dev/null 2>&1; }
disconnect() {
	nbd-client -d /dev/nbd0 >/dev/null
	while [ -e /sys/block/nbd0/pid ]; do sleep 0.05; done
	nbdcrypt detach "$1" >/dev/null
}
`

// TestRuleA1_DMCryptIsTheOracle: the kernel's dm-crypt reads what was written through us, and we read what dm-crypt wrote, for both sizes of sectors; and
// the same on a disk with snapshots, by way of its export.
func TestRuleA1_DMCryptIsTheOracle(t *testing.T) {
	t.Parallel()
	m := withPool(t, "512M", machine.Options{})
	m.Put("/lib/oracle.sh", []byte(oracle), 0o644)
	serve(m, "")
	m.Run("nbdcrypt grant create")
	for _, disk := range []struct {
		name         string
		size, sector int64
	}{{"d512", 2<<20 + 3*512, 512}, {"d4096", 2<<20 + 4096, 4096}} {
		m.Run(fmt.Sprintf("nbdcrypt disk create %s --size %d --encrypted --sector-size %d", disk.name, disk.size, disk.sector))
		o := &comparison{t, m, disk.name, disk.size, disk.sector}
		o.single()
		if disk.sector == 512 || long {
			o.exported()
		}
	}
	m.Run("nbdcrypt check")
}

// comparison is of one disk.
type comparison struct {
	t            *testing.T
	m            *machine.Machine
	disk         string
	size, sector int64
}

func (o *comparison) run(format string, args ...any) string {
	o.t.Helper()
	return o.m.Run(". /lib/oracle.sh\n" + fmt.Sprintf(format, args...))
}

// same holds two sums against each other, which were made of the whole disk.
func (o *comparison) same(what, ours, theirs string) {
	o.t.Helper()
	if ours != theirs || strings.HasPrefix(ours, "e3b0c442") {
		o.t.Errorf("%s: %s: we have %s dm-crypt has %s", o.disk, what, ours, theirs)
		return
	}
	tally(o.t, "dm-crypt, both ways", 1, o.size, 0)
}

// single is about a disk whose one layer was written from end to end, so that the segment file is all that dm-crypt needs.
func (o *comparison) single() {
	segment := get[control.Disk](o.t, o.m, "disk show "+o.disk).Layers[0].Segments[0]
	key := get[control.Escrow](o.t, o.m, "disk escrow "+o.disk+" --yes").Layers[0].Key
	ours := o.run("connect %s %d; noise /dev/nbd0 %d; sum /dev/nbd0 %[3]d; disconnect %[1]s", o.disk, o.sector, o.size)
	theirs := o.run("crypt %s %s %d; sum /dev/mapper/oracle %d", segment, key, o.sector, o.size)
	o.same("what we wrote", ours, theirs)
	theirs = o.run("noise /dev/mapper/oracle %d; sum /dev/mapper/oracle %[1]d; cryptsetup close oracle; sync -f %s", o.size, segment)
	ours = o.run("connect %s %d; sum /dev/nbd0 %d; disconnect %[1]s", o.disk, o.sector, o.size)
	o.same("what dm-crypt wrote", ours, theirs)
	if o.sector == 4096 { // dm-crypt's other way to number large sectors is not ours, and the comparison tells
		if theirs = o.run("crypt %s %s 4096 --iv-large-sectors; sum /dev/mapper/oracle %d; cryptsetup close oracle", segment, key, o.size); theirs == ours {
			o.t.Error("the comparison does not see another IV")
		}
	}
}

// exported is about a disk of several layers with holes: what was exported is one file under one key.
func (o *comparison) exported() {
	o.run(`nbdcrypt snapshot create %s before-%[1]s
		connect %[1]s %d
		dd if=/dev/urandom of=/dev/nbd0 bs=4096 count=100 seek=200 conv=fsync status=none
		blkdiscard -o 1048576 -l 524288 /dev/nbd0
		disconnect %[1]s`, o.disk, o.sector)
	export := get[control.Escrow](o.t, o.m, "disk export "+o.disk+" /var/lib/nbdcrypt/export --ciphertext --yes")
	ours := o.run("connect %s %d; sum /dev/nbd0 %d; disconnect %[1]s", o.disk, o.sector, o.size)
	theirs := o.run("crypt /var/lib/nbdcrypt/export %s %d; sum /dev/mapper/oracle %d", export.Layers[0].Key, o.sector, o.size)
	o.same("the export", ours, theirs)
	// There is no way to give us ciphertext of others; as plaintext it comes back by way of an image.
	theirs = o.run("noise /dev/mapper/oracle %d; sum /dev/mapper/oracle %[1]d", o.size)
	ours = o.run(`dd if=/dev/mapper/oracle bs=%d count=1 iflag=fullblock status=none | nbdcrypt image create i-%s --from-file - --format raw --sector-size %d --encrypted >/dev/null
		cryptsetup close oracle
		rm /var/lib/nbdcrypt/export
		nbdcrypt disk create again-%[2]s --from-image i-%[2]s >/dev/null
		connect again-%[2]s %[3]d
		sum /dev/nbd0 %[1]d
		disconnect again-%[2]s`, o.size, o.disk, o.sector)
	o.same("what dm-crypt wrote over the export", ours, theirs)
}
