package mounts

import (
	"strings"
	"testing"
)

const sample = `27 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
44 27 43:0 / /srv/my\040disk rw,relatime shared:9 master:1 - ext4 /dev/nbd0 rw
45 44 43:16 / /srv/my\040disk ro - xfs /dev/nbd1 rw,user_id=7
46 27 0:40 / /home/u/d\134x rw,nosuid,nodev - fuse /dev/fuse rw,user_id=1000,group_id=1000
47 27 0:41 / /home/u/e rw - fuse.sshfs host:/x\011y rw,user_id=0,group_id=0
`

// TestAt: names are what they are, the topmost counts, and owners are those of FUSE alone.
func TestAt(t *testing.T) {
	for _, c := range []struct {
		dir  string
		want Mounted
		uid  int64
	}{
		{"/", Mounted{Dir: "/", Kind: "ext4", Source: "/dev/vda1"}, -1},
		{"/srv/my disk", Mounted{Dir: "/srv/my disk", Kind: "xfs", Source: "/dev/nbd1"}, -1},
		{`/home/u/d\x`, Mounted{Dir: `/home/u/d\x`, Kind: "fuse", Source: "/dev/fuse"}, 1000},
		{"/home/u/e", Mounted{Dir: "/home/u/e", Kind: "fuse.sshfs", Source: "host:/x\ty"}, 0},
	} {
		got, err := at(strings.NewReader(sample), c.dir)
		if err != nil || got == nil {
			t.Errorf("nothing at %s: %v", c.dir, err)
			continue
		}
		uid := int64(-1)
		if got.Owner != nil {
			uid = int64(*got.Owner)
		}
		got.Owner = nil
		if *got != c.want || uid != c.uid || got.IsFuse() != (c.uid >= 0) {
			t.Errorf("%s: %+v of %d", c.dir, *got, uid)
		}
	}
	for _, dir := range []string{"/srv", "/srv/my", ""} {
		if got, err := at(strings.NewReader(sample), dir); got != nil || err != nil {
			t.Errorf("%q: %+v, %v", dir, got, err)
		}
	}
	if _, err := at(strings.NewReader(sample+"48 27 0:41 / /short - ext4\n"), "/"); err == nil {
		t.Error("a line that is none is read")
	}
}

// TestAtHere reads the machine's own table.
func TestAtHere(t *testing.T) {
	if m, err := At("/proc"); err != nil || m == nil || m.Kind != "proc" {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err := At(t.TempDir()); err != nil || m != nil {
		t.Errorf("%+v, %v", m, err)
	}
}
