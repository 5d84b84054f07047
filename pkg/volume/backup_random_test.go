package volume_test

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/volume"
)

// backupGame plays with one disk and its backups, and knows what each of them has to hold.
type backupGame struct {
	*rig
	rng   *rand.Rand
	disk  []byte
	snaps map[string][]byte
	kept  map[string][]byte // what each backup holds
	files map[string][]byte // those that were carried away
	n     int
}

// Whatever is done to a disk between its backups, each gives back what the disk held at its moment, after they travelled, too.
func TestBackupsOfAnyHistoryRestore(t *testing.T) {
	first, count := uint64(1), uint64(2)
	if text := os.Getenv("NBDCRYPT_BACKUP_SEED"); text != "" {
		first, _ = strconv.ParseUint(text, 10, 64)
		count = 1
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			g := &backupGame{rig: newRig(t), rng: rand.New(rand.NewPCG(seed, 0)), snaps: map[string][]byte{}, kept: map[string][]byte{}, files: map[string][]byte{}}
			g.key("other")
			g.disk = make([]byte, mib+4096*int(seed%3)+512*int(seed%8))
			g.create(volume.Spec{Project: "default", Name: "vault", Size: int64(len(g.disk)), SectorSize: 512, Encrypted: seed%3 != 0})
			g.Service.Close()
			g.restart()
			g.attach("vault")
			for range 40 {
				g.step()
			}
			g.restoreAll("in the end")
			g.travel()
			g.restoreAll("after their travel")
		})
	}
}

func (g *backupGame) name(kind string) string { g.n++; return fmt.Sprint(kind, g.n) }

// any is the name of one of those.
func (g *backupGame) any(of map[string][]byte) string {
	for i, names := 0, sortedNames(of); i < len(names); i++ {
		if g.rng.IntN(len(names)-i) == 0 {
			return names[i]
		}
	}
	return ""
}

func sortedNames(of map[string][]byte) (names []string) {
	for i := range 1000 {
		for _, kind := range []string{"s", "b"} {
			if name := fmt.Sprint(kind, i); of[name] != nil {
				names = append(names, name)
			}
		}
	}
	return names
}

func (g *backupGame) step() {
	g.t.Helper()
	ctx := g.t.Context()
	switch g.rng.IntN(12) {
	case 0, 1:
		g.change()
	case 2, 3, 4:
		g.change()
		name := g.name("b")
		b, err := g.CreateBackup(ctx, name, volume.BackupSpec{Project: "default", Disk: "vault", Name: name, Full: g.rng.IntN(6) == 0}, volume.Work{})
		must(g.t, err)
		if b.Parent != "" {
			g.t.Logf("%s is incremental", name)
		}
		g.kept[name] = bytes.Clone(g.disk)
	case 5:
		if len(g.snaps) < 4 {
			name := g.name("s")
			g.snapshot("vault", name)
			g.snaps[name] = bytes.Clone(g.disk)
		}
	case 6:
		if name := g.any(g.snaps); name != "" {
			warnings, err := g.DeleteSnapshot(ctx, g.name("q"), "default", name, volume.Work{})
			must(g.t, err)
			if text := fmt.Sprint(warnings); strings.Contains(text, "not given back") {
				g.t.Error(text)
			}
			delete(g.snaps, name)
		}
	case 7:
		if name := g.any(g.snaps); name != "" && g.rng.IntN(2) == 0 {
			_, err := g.detach("vault")
			must(g.t, err)
			_, err = g.Rollback(ctx, g.name("r"), "default", "vault", name)
			must(g.t, err)
			old := len(g.disk)
			g.disk = append(bytes.Clone(g.snaps[name]), make([]byte, old-len(g.snaps[name]))...)
			g.attach("vault")
		}
	case 8:
		size := int64(len(g.disk) + 512*g.rng.IntN(40))
		_, err := g.Extend(ctx, g.name("x"), "default", "vault", size)
		if size > int64(len(g.disk)) {
			must(g.t, err)
			g.disk = append(g.disk, make([]byte, int(size)-len(g.disk))...)
		}
	case 9:
		d, err := g.Get(ctx, "default", "vault")
		must(g.t, err)
		if d.Encrypted && g.rng.IntN(2) == 0 {
			_, err := g.Rekey(ctx, g.name("k"), "default", "vault", volume.Work{})
			must(g.t, err)
		}
	case 10:
		_, err := g.detach("vault")
		must(g.t, err)
		if g.rng.IntN(2) == 0 {
			g.Service.Close()
			g.restart()
		}
		must(g.t, g.Tidy(ctx, volume.Work{}))
		g.attach("vault")
	case 11:
		// The newest goes, or another on which nothing stands.
		if name := g.any(g.kept); name != "" && g.rng.IntN(3) == 0 {
			if err := g.DeleteBackup(ctx, "default", name); err == nil {
				delete(g.kept, name)
			}
		}
	}
}

func (g *backupGame) change() {
	a := g.attachmentOf("vault")
	for range 1 + g.rng.IntN(6) {
		off := g.rng.IntN(len(g.disk) - 1)
		if g.rng.IntN(4) == 0 {
			off = len(g.disk) - 1 - g.rng.IntN(min(9000, len(g.disk)-1))
		}
		n := 1 + g.rng.IntN(min(len(g.disk)-off, 100_000))
		off, n = off/512*512, (n+511)/512*512
		n = min(n, len(g.disk)-off)
		p := g.disk[off : off+n]
		var err error
		switch g.rng.IntN(4) {
		case 0:
			clear(p)
			err = a.Device.ZeroAt(int64(off), int64(n), g.rng.IntN(2) == 0)
		default:
			for i := range p {
				p[i] = byte(g.rng.Uint32())
			}
			_, err = a.Device.WriteAt(p, int64(off))
		}
		must(g.t, err)
	}
}

// restoreAll makes a disk of each backup, and compares.
func (g *backupGame) restoreAll(when string) {
	g.t.Helper()
	for _, name := range sortedNames(g.kept) {
		want := g.kept[name]
		spec := volume.Spec{Name: g.name("d"), Encrypted: g.rng.IntN(2) == 0, Size: int64(len(want) + 512*g.rng.IntN(2)*g.rng.IntN(20))}
		if spec.Encrypted && g.rng.IntN(2) == 0 {
			spec.Key = "other"
		}
		_, err := g.restore(name, spec)
		must(g.t, err)
		got := g.content(spec.Name)
		if !bytes.Equal(got[:len(want)], want) || len(bytes.TrimLeft(got[len(want):], "\x00")) > 0 {
			at := 0
			for at < len(want) && got[at] == want[at] {
				at++
			}
			g.t.Fatalf("%s: what was restored of %s, %d bytes into %d, differs from byte %d on", when, name, len(want), len(got), at)
		}
		must(g.t, g.Delete(g.t.Context(), g.name("e"), "default", spec.Name))
	}
}

// travel has all backups go out, deletes them, and has them come back in any order.
func (g *backupGame) travel() {
	ctx := g.t.Context()
	for _, name := range sortedNames(g.kept) {
		c, _, err := g.ExportBackup(ctx, "default", name, 0)
		must(g.t, err)
		g.files[name], err = io.ReadAll(c)
		c.Close()
		must(g.t, err)
	}
	list, err := g.ToPrune(ctx, "default", "vault", 0)
	must(g.t, err)
	for _, b := range list {
		must(g.t, g.DeleteBackup(ctx, "default", b.ID))
	}
	if left := g.backupFiles(); len(left) > 0 || g.records("backup/") > 0 || g.records("dek/backup/") > 0 {
		g.t.Errorf("of deleted backups there are %v", left)
	}
	for len(g.files) > 0 {
		name := g.any(g.files)
		file := g.files[name]
		delete(g.files, name)
		cut := g.rng.IntN(len(file))
		for _, part := range [][]byte{file[:cut], file} {
			a, have, err := g.Arrive(ctx, "default", file[:backup.HeaderSize], nil)
			must(g.t, err)
			err = a.Take(ctx, have, bytes.NewReader(part[min(len(part), int(have)):]), func(int64, int64) {})
			if (err == nil) != (len(part) == len(file)) {
				g.t.Errorf("%d of %d bytes: %v", len(part), len(file), err)
			}
			if err == nil {
				must(g.t, a.Verify(ctx, func(int64, int64) {}))
				_, err = a.Keep(ctx, uuid.NewString())
				must(g.t, err)
			}
			a.Close()
		}
	}
}
