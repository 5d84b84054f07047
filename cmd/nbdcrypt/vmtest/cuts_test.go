//go:build vm

package vmtest

import (
	"fmt"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/cmd/nbdcrypt/vmtest/recorder"
)

// create makes disks, and uses them as people do: one by its export alone, one as the kernel's device, one with a file system on the kernel's device.
const create = `
nbdcrypt grant create
nbdcrypt disk create client --size 260M --encrypted
nbdcrypt disk create device --size 260M --encrypted --sector-size 4096
nbdcrypt disk create files --size 64M --encrypted
nbdcrypt attach client
nbdcrypt attach device --device /dev/nbd0
nbdcrypt attach files --device /dev/nbd1
mkfs.ext4 -q /dev/nbd1
mount /dev/nbd1 /mnt
truncate -s 8M /mnt/file
sync
`

// stream is a load, and where it goes. Parts lie so far apart that they have records of their own in a disk's map.
type stream struct{ name, plan, target string }

var streams = []stream{
	{"client", "-seed=5 -workers=3 -sectors=1024 -stride=67108864", "'nbd+unix:///client?socket=/run/nbdcrypt/nbd.sock'"},
	{"device", "-whole -seed=6 -workers=2 -sectors=1024 -stride=67108864", "/dev/nbd0"},
	{"files", "-seed=7 -workers=2 -sectors=1024", "/mnt/file"},
}

// metadata changes everything that the catalog knows of, and says what was acknowledged. The word before a snapshot has to be heard before it is made.
const metadata = `
i=0
while :; do
	i=$((i+1))
	nbdcrypt key create k$i >/dev/null && echo "done key $i"
	nbdcrypt key rotate k$i >/dev/null && echo "done rotate $i"
	nbdcrypt disk create d$i --size 2M --key k$i >/dev/null && echo "done disk $i"
	echo "begin"; sleep 0.3
	nbdcrypt snapshot create client s$i >/dev/null && echo "done snapshot $i"
	nbdcrypt image create i$i --from-disk d$i >/dev/null && echo "done image $i"
	nbdcrypt disk extend d$i --size 4M >/dev/null && echo "done extend $i"
	nbdcrypt key disable k$i >/dev/null && echo "done disable $i"
	nbdcrypt disk create gone$i --size 2M >/dev/null && nbdcrypt disk delete gone$i --yes >/dev/null 2>&1 && echo "done delete $i"
done
`

// each is how many images are verified of one run, in one machine: they are its disks.
const each = 10

// pools are the file systems below the pool.
var pools = []struct{ mkfs, fsck string }{{"mkfs.ext4 -q", "e2fsck -fn"}, {"mkfs.xfs -q", "xfs_repair -n"}}

// TestPowerCuts: whatever a power cut leaves of the disk below the pool, every flush and every command that was acknowledged before is there.
func TestPowerCuts(t *testing.T) {
	t.Parallel()
	for done := 0; done < *cuts; done += each {
		pool, n := pools[done/each%len(pools)], min(each, *cuts-done)
		t.Run(fmt.Sprintf("%d to %d", done+1, done+n), func(t *testing.T) {
			b := newBench(t, pool.mkfs)
			b.cut(200, 9)
			b.verify(uint64(done), n, pool.fsck)
		})
	}
}

// verify makes some images and looks at each. The last is of a disk that lied, which has to be noticed.
func (b *bench) verify(seed uint64, n int, fsck string) {
	b.t.Helper()
	images := b.images(seed, n)
	lie := b.lie()
	var disks []machine.Disk
	for _, im := range append(images, lie) {
		disks = append(disks, machine.Disk{Source: im.path, Serial: im.serial})
	}
	m := machine.Start(b.t, machine.Options{Disks: disks})
	defer m.Cut()
	for _, im := range images {
		v := b.look(m, im, fsck)
		if v.First != "" || len(v.missing) > 0 {
			b.t.Errorf("cut at %d, %v kept (%+v): %s; commands that were acknowledged, and came to nothing: %q", im.cut, im.keep, im.left, v.First, v.missing)
		}
		tally(b.t, "power cuts", 1, v.Promised, v.Lost+v.Garbage)
	}
	if v := b.look(m, lie, fsck); v.Lost == 0 || len(v.missing) == 0 {
		b.t.Errorf("a disk that forgot what was flushed went unnoticed: %+v, %q", v.Result, v.missing)
	}
}

// look opens an image and holds all of it against what was acknowledged.
func (b *bench) look(m *machine.Machine, im image, fsck string) *verifier {
	b.t.Helper()
	v := &verifier{t: b.t, m: m}
	v.open(im)
	for _, s := range streams {
		v.hold(s, im.acks[s.name])
	}
	v.commands(im.done)
	v.snapshot(im.done, im.snapshot)
	v.close(im, fsck)
	b.t.Logf("cut at %d, %v kept of %+v: %d commands, %+v", im.cut, im.keep, im.left, len(im.done), v.Result)
	return v
}

// keeps are what images keep, in turn.
var keeps = []recorder.Keep{recorder.Nothing, recorder.Some, recorder.Torn, recorder.Everything}
