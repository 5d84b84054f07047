package volume_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// forged is a backup that somebody makes and signs himself: one block of a plain disk.
func forged(t *testing.T, h backup.Header, private ed25519.PrivateKey) []byte {
	t.Helper()
	h.Size, h.SectorSize = 4096, 512
	to := &memory{}
	w := backup.NewWriter(t.Context(), to, h, func(p []byte, _ int64) error { clear(p); return nil }, func(int64) {})
	defer w.Close()
	must(t, w.Add(backup.Extent{Count: 1}))
	h, manifest, err := w.Finish()
	must(t, err)
	tail, err := backup.Trailer{ID: h.ID, Manifest: manifest, Written: h.Taken, Public: private.Public().(ed25519.PublicKey)}.Encode(
		func(m []byte) ([]byte, error) { return ed25519.Sign(private, m), nil })
	must(t, err)
	return append(to.p[:h.Body()], tail...)
}

// memory is a file in memory.
type memory struct{ p []byte }

func (m *memory) WriteAt(p []byte, off int64) (int, error) {
	m.p = append(m.p, make([]byte, max(0, int(off)+len(p)-len(m.p)))...)
	return copy(m.p[off:], p), nil
}

// Who offers one backup and sends another gets neither in: what the offer was refused or allowed for is the first header. Else anybody who may
// import into a project of his own could replace the backups of others.
func TestWhatWasOfferedIsWhatArrives(t *testing.T) {
	r := newRig(t)
	r.create(volume.Spec{Project: "default", Name: "vault", Size: mib, SectorSize: 512})
	write(t, r.attach("vault"), random(9000), 4096)
	b := r.backup("vault", "monday")
	before := r.backupFile(b)
	public, private, err := ed25519.GenerateKey(nil)
	must(t, err)
	h := backup.Header{ID: uuid.New(), Store: uuid.New(), Disk: uuid.New(), Taken: time.Unix(1e9, 0), DiskName: "d", Name: "mine", Project: "other"}
	offered := forged(t, h, private)
	for _, project := range []string{"other", "default"} {
		h.ID, h.Project = uuid.MustParse(b.ID), project
		sent := forged(t, h, private)
		a, have, err := r.Arrive(t.Context(), "other", offered[:backup.HeaderSize], public)
		must(t, err)
		must(t, a.Take(t.Context(), have, bytes.NewReader(sent), func(int64, int64) {}))
		if err = a.Verify(t.Context(), func(int64, int64) {}); err == nil {
			_, err = a.Keep(t.Context(), "keep")
		}
		a.Close()
		wantCode(t, err, refusal.Damaged)
	}
	if list, err := r.Backups(t.Context(), "default", ""); err != nil || len(list) != 1 || list[0].Manifest != b.Manifest || !bytes.Equal(r.backupFile(b), before) {
		t.Errorf("%+v %v", list, err)
	}
	if files := r.backupFiles(); len(files) != 1 {
		t.Errorf("there are %v", files)
	}
}

// What a backup is being made on can't be deleted meanwhile, nor can what is being made.
func TestWhatABackupIsMadeOnStays(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	write(t, a, random(mib), 0)
	r.backup("vault", "b1")
	write(t, a, random(9000), 12288)
	want := r.content("vault")
	tried := 0
	w := volume.Work{Progress: func(int64, int64) {
		tried++
		for _, name := range []string{"b1", "b2"} {
			wantCode(t, r.DeleteBackup(context.Background(), "default", name), refusal.Busy)
		}
	}}
	_, err := r.CreateBackup(t.Context(), "b2", volume.BackupSpec{Project: "default", Disk: "vault", Name: "b2"}, w)
	must(t, err)
	if tried == 0 {
		t.Fatal("nothing was tried")
	}
	_, err = r.restore("b2", volume.Spec{Name: "again", Encrypted: true})
	must(t, err)
	r.holds("again", want)
}

// Backups of one second, or of a clock that went back, have an order: each comes after what it stands on, and goes before it.
func TestOrderOfBackupsOfOneSecond(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	var files [][]byte
	for i := range 12 {
		b := r.backup("vault", fmt.Sprint("b", i))
		c, _, err := r.ExportBackup(t.Context(), "default", b.ID, 0)
		must(t, err)
		file, err := io.ReadAll(c)
		c.Close()
		must(t, err)
		files = append(files, file)
	}
	prune := func() {
		t.Helper()
		list, err := r.ToPrune(t.Context(), "default", "vault", 0)
		must(t, err)
		for _, b := range list {
			must(t, r.DeleteBackup(t.Context(), "default", b.ID))
		}
	}
	prune()
	for _, file := range files {
		a, have, err := r.Arrive(t.Context(), "default", file[:backup.HeaderSize], nil)
		must(t, err)
		must(t, a.Take(t.Context(), have, bytes.NewReader(file), func(int64, int64) {}))
		must(t, a.Verify(t.Context(), func(int64, int64) {}))
		_, err = a.Keep(t.Context(), uuid.NewString())
		must(t, err)
		a.Close()
	}
	list, err := r.Backups(t.Context(), "default", "")
	must(t, err)
	for i, b := range list {
		if b.Depth != i {
			t.Errorf("%s has place %d", b.Name, i)
		}
	}
	prune()
}

// What a backup was made of goes once nobody reads it any more, after a re-key or a rollback: it would keep all of the old data, which has no key.
func TestWhatABackupWasMadeOfGoesWithItsLastReader(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	write(t, r.attach("vault"), random(mib), 0)
	r.snapshot("vault", "s")
	want := r.content("vault")
	r.backup("vault", "b1")
	if untidy, err := r.Untidy(t.Context()); err != nil || untidy {
		t.Error("there is nothing to do yet", err)
	}
	_, err := r.Rekey(t.Context(), "rekey", "default", "vault", volume.Work{})
	must(t, err)
	if untidy, err := r.Untidy(t.Context()); err != nil || !untidy {
		t.Error("the layer is not found", err)
	}
	must(t, r.Tidy(t.Context(), volume.Work{}))
	r.dropSnapshot("s")
	if r.layersOf("vault") != 1 || r.records("layer/") != 1 || r.records("ref/") != 0 {
		t.Errorf("there are %d layers and %d references", r.records("layer/"), r.records("ref/"))
	}
	_, err = r.restore("b1", volume.Spec{Name: "again"})
	must(t, err)
	r.holds("again", want)
}
