//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// layered starts a daemon with a key `mine` whose temporary files, and those of its clients, lie where they are searched.
func layered(t *testing.T) *daemon {
	t.Helper()
	d := newDaemon(t)
	temporary := d.dir + "/tmp"
	tool(t, "mkdir", temporary)
	d.env = append(d.env, "TMPDIR="+temporary)
	d.start()
	d.do("grant", "create")
	d.do("key", "create", "mine")
	return d
}

// noMarker looks for the marker in every file below the daemon's directory, temporary ones too.
func (d *daemon) noMarker(when string) {
	d.t.Helper()
	for _, path := range files(d.t, d.dir) {
		// What goes while it is looked for, as layers do that nobody needs any more, shows nothing either.
		if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, marker[:200]) {
			d.t.Errorf("%s: plaintext is in %s", when, path)
		}
	}
}

// holds attaches a disk, sees that it holds that, and detaches it.
func (d *daemon) holds(name string, want []byte, at int64) {
	d.t.Helper()
	c := dial(d.t, d.attach(name))
	expect(d.t, c, want, at)
	check(d.t, c.Disconnect())
	d.do("detach", name)
}

// like tells that something has a disk's attribute and key.
func like(t *testing.T, what string, encrypted bool, key *control.DiskKey, disk control.Disk) {
	t.Helper()
	if encrypted != disk.Encrypted || encrypted != (key != nil) || encrypted && key.ID != disk.Key.ID {
		t.Errorf("%s: encrypted %v, key %+v, unlike %+v", what, encrypted, key, disk)
	}
}

// TestRuleA27_A31_Snapshots: a snapshot, and the disks that are made from it, have the attribute and the key of the disk; asking for another is refused.
// All hold exactly what was answered before the snapshot. Clones that write the same at the same place write different ciphertext.
func TestRuleA27_A31_Snapshots(t *testing.T) {
	t.Parallel()
	d := layered(t)
	d.do("key", "create", "other")
	for _, kind := range []struct {
		name  string
		flags []string
		not   [][]string
	}{
		{"secret", []string{"--key=mine"}, [][]string{{"--plain"}, {"--key=other"}, {"--sector-size=4096"}, {"--size=4M"}}},
		{"secret4096", []string{"--key=mine", "--sector-size=4096"}, [][]string{{"--sector-size=512"}}},
		{"plain", []string{"--plain"}, [][]string{{"--encrypted"}, {"--key=mine"}}},
	} {
		d.create(kind.name, "8M", kind.flags...)
		c := dial(t, d.attach(kind.name))
		write(t, c, marker, 12345)
		s := get[control.Snapshot](d, "snapshot", "create", kind.name, kind.name+"-snap")
		write(t, c, noise("later", len(marker)), 12345)
		check(t, c.Flush())
		disk := d.show(kind.name)
		like(t, "the snapshot", s.Encrypted, s.Key, disk)
		for _, flags := range kind.not {
			d.refused(2, append([]string{"disk", "create", "no", "--from-snapshot=" + s.Name}, flags...)...)
		}
		d.clones(kind.name, s.Name, disk)
		d.do("detach", kind.name)
		if kind.name != "plain" {
			d.noMarker(kind.name)
		}
	}
	d.checkClean()
}

// clones makes two linked disks and a full one of a snapshot, all of which hold the marker.
func (d *daemon) clones(name, snapshot string, source control.Disk) {
	d.t.Helper()
	same := noise("same", 64<<10)
	var written [][]byte
	for i, flags := range [][]string{nil, {"--size=12M"}, {"--full"}} {
		clone := fmt.Sprint(name, "-", i)
		d.do(append([]string{"disk", "create", clone, "--from-snapshot=" + snapshot}, flags...)...)
		made := d.show(clone)
		like(d.t, clone, made.Encrypted, made.Key, source)
		if made.Source == nil || made.Source.Name != snapshot || made.SectorSize != source.SectorSize {
			d.t.Errorf("%s: source %+v, sectors of %d", clone, made.Source, made.SectorSize)
		}
		c := dial(d.t, d.attach(clone))
		expect(d.t, c, marker, 12345)
		write(d.t, c, same, 4<<20)
		check(d.t, c.Flush())
		check(d.t, c.Disconnect())
		d.do("detach", clone)
		written = append(written, readFile(d.t, d.show(clone).Layers[0].Segments[0])[4<<20:][:len(same)])
	}
	for i, a := range written {
		for j, b := range written[i+1:] {
			if bytes.Equal(a, b) == source.Encrypted {
				d.t.Errorf("%s: clones %d and %d have equal bytes: %v", name, i, i+1+j, !source.Encrypted)
			}
		}
	}
	d.aloneSoon(name + "-2")
}

// aloneSoon waits until a full copy stands on nothing any more.
func (d *daemon) aloneSoon(name string) {
	d.t.Helper()
	waitFor(d.t, "the full copy does not end", func() bool { return len(d.show(name).Layers) == 1 })
}

// TestRuleB11_B12_SnapshotsOfADisk: seven of them; back only for the disk they are of, and only while nobody uses it; they go with the disk, and what was
// made from them stays.
func TestRuleB11_B12_SnapshotsOfADisk(t *testing.T) {
	t.Parallel()
	d := layered(t)
	disk := d.create("vol", "8M", "--key=mine")
	d.create("stranger", "8M", "--key=mine")
	c := dial(t, d.attach("vol"))
	for i := range 7 {
		write(t, c, noise(fmt.Sprint(i), 100_000), 1<<20)
		d.do("snapshot", "create", "vol", fmt.Sprint("s", i))
	}
	if e := d.refused(6, "snapshot", "create", "vol", "s8"); !strings.Contains(e.Message, "7") {
		t.Errorf("the refusal does not name the limit: %s", e.Message)
	}
	d.refused(6, "snapshot", "rollback", "vol", "s2", "--yes")
	check(t, c.Disconnect())
	d.do("detach", "vol")
	d.refused(2, "snapshot", "rollback", "stranger", "s2", "--yes")
	d.refused(9, "snapshot", "rollback", "vol", "s2")
	d.do("snapshot", "rollback", "vol", "s2", "--yes")
	d.holds("vol", noise("2", 100_000), 1<<20)

	d.do("disk", "create", "linked", "--from-snapshot=s5")
	d.do("snapshot", "delete", "s4", "--yes")
	d.holds("linked", noise("5", 100_000), 1<<20)
	d.do("disk", "delete", "vol", "--yes")
	if list := get[[]control.Snapshot](d, "snapshot", "list"); len(list) != 0 {
		t.Errorf("snapshots are left: %+v", list)
	}
	d.refused(3, "disk", "escrow", "vol", "--yes")
	for _, s := range disk.Layers[0].Segments {
		// The bottom layer is the clone's now, or was merged into one of its own, which removes the file in its own time.
		waitFor(t, s+" belongs to nobody", func() bool {
			return !exists(s) || slices.ContainsFunc(d.show("linked").Layers, func(l control.DiskLayer) bool { return slices.Contains(l.Segments, s) })
		})
	}
	d.holds("linked", noise("5", 100_000), 1<<20)
	d.stop()
	d.start()
	d.holds("linked", noise("5", 100_000), 1<<20)
	d.do("disk", "delete", "linked", "--yes")
	d.do("disk", "delete", "stranger", "--yes")
	d.leavesLayerFiles(0)
	d.checkClean()
}

// TestRuleB13_ExtendedOverLayers: a disk with snapshots grows while it is attached; what it held, and what they hold, stays.
func TestRuleB13_ExtendedOverLayers(t *testing.T) {
	t.Parallel()
	d := layered(t)
	d.create("vol", "4196864", "--key=mine") // within a block
	uri := d.attach("vol")
	c := dial(t, uri)
	write(t, c, noise("first", 8192), 4196864-8192)
	d.do("snapshot", "create", "vol", "small")
	d.do("disk", "extend", "vol", "--size=8M")
	d.refused(2, "disk", "extend", "vol", "--size=4M")
	c = dial(t, uri)
	if c.Size() != 8<<20 {
		t.Errorf("a client that connects sees %d bytes", c.Size())
	}
	expect(t, c, append(noise("first", 8192), make([]byte, 65536)...), 4196864-8192)
	write(t, c, noise("second", 8192), 7<<20)
	d.do("snapshot", "create", "vol", "large")
	expect(t, c, noise("second", 8192), 7<<20)
	write(t, c, noise("third", 100), 7<<20+50)
	want := slices.Concat(noise("second", 8192)[:50], noise("third", 100), noise("second", 8192)[150:])
	expect(t, c, want, 7<<20)
	d.do("detach", "vol")
	d.do("snapshot", "rollback", "vol", "small", "--yes")
	if disk := d.show("vol"); disk.Size != 8<<20 {
		t.Errorf("rolled back it has %d bytes", disk.Size)
	}
	d.holds("vol", append(noise("first", 8192), make([]byte, 8<<20-4196864)...), 4196864-8192)
	d.do("disk", "create", "clone", "--from-snapshot=large")
	d.holds("clone", noise("second", 8192), 7<<20)
	d.checkClean()
}
