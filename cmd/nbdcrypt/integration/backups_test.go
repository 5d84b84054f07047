//go:build integration

package integration

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// TestRuleA28_A30_Backups: a backup has its disk's attribute, and what is stored of an encrypted one shows nothing; a disk made of it is free to differ, in
// attribute and key (rule C4), and holds the same.
func TestRuleA28_A30_Backups(t *testing.T) {
	t.Parallel()
	d := layered(t)
	d.do("key", "create", "other")
	d.noMarker("before")
	for _, kind := range []struct{ name, flag string }{{"secret", "--key=mine"}, {"plain", "--plain"}} {
		disk := d.create(kind.name, "8M", kind.flag)
		c := dial(t, d.attach(kind.name))
		write(t, c, marker, 12345)
		full := get[control.Backup](d, "backup", "create", kind.name, kind.name+"-1")
		like(t, "the backup", full.Encrypted, full.Key, disk)
		write(t, c, noise("later", 100_000), 5<<20)
		next := get[control.Backup](d, "backup", "create", kind.name, kind.name+"-2")
		if full.Parent != nil || next.Parent == nil || next.Parent.Name != full.Name || next.Length >= full.Length+100_000 {
			t.Errorf("the first %+v, the next %+v", full, next)
		}
		write(t, c, noise("last", 4096), 0) // is in none
		check(t, c.Flush())
		if kind.name == "secret" {
			d.noMarker("backed up")
		}
		d.do("backup", "verify", next.Name)
		for i, flag := range []string{"--plain", "--encrypted", "--key=mine", "--key=other"} {
			restored := fmt.Sprint(kind.name, "-", i)
			made := get[control.Disk](d, "disk", "create", restored, "--from-backup="+next.Name, flag)
			key, by := strings.CutPrefix(flag, "--key=")
			if made.Encrypted != (flag != "--plain") || by && made.Key.Alias != key {
				t.Errorf("with %s it is encrypted %v, under %+v", flag, made.Encrypted, made.Key)
			}
			d.holds(restored, marker, 12345)
			d.holds(restored, noise("later", 100_000), 5<<20)
			d.holds(restored, make([]byte, 4096), 0)
			d.do("disk", "delete", restored, "--yes")
		}
		d.do("detach", kind.name)
	}
	// Rule B11.
	d.do("disk", "delete", "secret", "--yes")
	d.do("key", "disable", "mine")
	d.refused(4, "disk", "create", "locked", "--from-backup=secret-2", "--plain")
	d.do("key", "enable", "mine")
	d.do("disk", "create", "again", "--from-backup=secret-2", "--key=mine")
	d.holds("again", marker, 12345)
	d.checkClean()
}

// TestRuleC4_BackupsTravel: a backup goes as a stream, is verified by who has nothing but a public key, and comes back into a store that has lost it; one flipped
// bit is found.
func TestRuleC4_BackupsTravel(t *testing.T) {
	t.Parallel()
	d := layered(t)
	d.create("vol", "8M", "--key=mine")
	c := dial(t, d.attach("vol"))
	write(t, c, marker, 12345)
	d.do("backup", "create", "vol", "mon")
	file, public := d.dir+"/mon.nbdbackup", d.dir+"/public.pem"
	d.do("backup", "export", "mon", file)
	writeFile(t, public, []byte(d.do("backup", "key")))
	elsewhere := d.command("backup", "verify", file, "--public-key", public)
	elsewhere.Env = append(elsewhere.Env, "NBDCRYPT_RUN=/nowhere")
	if r := execute(t, elsewhere); r.code != 0 {
		t.Errorf("verified elsewhere: %d, %s", r.code, r.stderr)
	}
	whole := readFile(t, file)
	for _, at := range []int{100, len(whole) / 2, len(whole) - 100} {
		whole[at] ^= 4
		writeFile(t, file, whole)
		if r := execute(t, d.command("backup", "verify", file, "--public-key", public)); r.code != 8 {
			t.Errorf("byte %d is flipped: %d, %s", at, r.code, r.stderr)
		}
		if r := execute(t, d.command("backup", "import", file)); r.code == 0 {
			t.Errorf("byte %d is flipped, and it is imported", at)
		}
		whole[at] ^= 4
	}
	d.do("backup", "delete", "mon", "--yes")
	in := d.command("backup", "import", "-")
	in.Stdin = strings.NewReader(string(whole))
	if r := execute(t, in); r.code != 0 {
		t.Fatalf("imported: %d, %s", r.code, r.stderr)
	}
	d.do("disk", "create", "back", "--from-backup=mon", "--encrypted")
	d.holds("back", marker, 12345)
	d.noMarker("travelled")
	d.do("detach", "vol")
	d.checkClean()
}
