package volume_test

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// backup makes a backup of a disk.
func (r *rig) backup(disk, name string) volume.Backup {
	r.t.Helper()
	b, err := r.CreateBackup(r.t.Context(), "backup "+name, volume.BackupSpec{Project: "default", Disk: disk, Name: name}, volume.Work{})
	must(r.t, err)
	return b
}

// restore makes a disk of a backup.
func (r *rig) restore(from string, spec volume.Spec) (volume.Disk, error) {
	r.t.Helper()
	spec.Project = "default"
	res, err := r.BeginRestore(r.t.Context(), "restore "+spec.Name, from, spec, nil)
	if err != nil {
		return volume.Disk{}, err
	}
	return res.Run(r.t.Context(), "restore "+spec.Name, func(int64, int64) {})
}

// write writes to an attached disk.
func write(t testing.TB, a *volume.Attachment, p []byte, off int64) {
	t.Helper()
	_, err := a.Device.WriteAt(p, off)
	must(t, err)
}

// content is what a disk reads as; it is attached for that where it is not.
func (r *rig) content(name string) []byte {
	r.t.Helper()
	d, err := r.Get(r.t.Context(), "default", name)
	must(r.t, err)
	a := d.Attachment
	if a == nil {
		a = r.attach(name)
		defer func() { _, err := r.detach(name); must(r.t, err) }()
	}
	p := make([]byte, d.Size)
	_, err = a.Device.ReadAt(p, 0)
	must(r.t, err)
	return p
}

// holds sees that a disk reads as it should.
func (r *rig) holds(name string, want []byte) {
	r.t.Helper()
	if got := r.content(name); !bytes.Equal(got[:len(want)], want) || len(bytes.TrimLeft(got[len(want):], "\x00")) > 0 {
		r.t.Errorf("disk %s does not read as it should", name)
	}
}

func random(n int) []byte {
	p := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{1})
	_, _ = rng.Read(p)
	return p
}

// backupFiles are the files of backups.
func (r *rig) backupFiles() (paths []string) {
	paths, err := filepath.Glob(filepath.Join(r.dir+"-backups", "*"))
	must(r.t, err)
	return paths
}

// Rule A28: a disk from a backup is free to differ: encrypted or plain, of either, under another key, with other sectors and larger. What is in it
// is the same. Rule C4: that is a copy under another key, and the backup stays what it is.
func TestRuleA28_C4_RestoredDisksMayDiffer(t *testing.T) {
	r := newRig(t)
	r.key("other")
	for _, from := range []volume.Spec{
		{Project: "default", Name: "sealed", Size: 3*mib + 512, SectorSize: 512, Encrypted: true},
		{Project: "default", Name: "open", Size: 3*mib + 4096, SectorSize: 4096},
	} {
		r.create(from)
		a := r.attach(from.Name)
		write(t, a, random(mib+5000), 300_000)
		write(t, a, []byte("the last bytes"), from.Size-14)
		want := r.content(from.Name)
		b := r.backup(from.Name, from.Name+"-b")
		write(t, a, []byte("written later"), 0)
		_, err := r.detach(from.Name)
		must(t, err)
		file := r.backupFile(b)
		for i, to := range []volume.Spec{
			{Encrypted: true}, {Encrypted: true, Key: "other"}, {}, {Encrypted: true, Key: "other", SectorSize: 512, Size: 5 * mib}, {SectorSize: 4096, Size: 4 * mib},
		} {
			to.Name = fmt.Sprintf("%s-%d", from.Name, i)
			d, err := r.restore(b.Name, to)
			must(t, err)
			if d.Encrypted != to.Encrypted || d.Status != volume.Available || to.Key != "" && d.Key.Alias != to.Key || to.Size == 0 && d.Size != from.Size {
				t.Errorf("restored to %+v: %+v", to, d)
			}
			r.holds(to.Name, want)
		}
		if !bytes.Equal(r.backupFile(b), file) {
			t.Error("the backup changed")
		}
	}
}

func (r *rig) backupFile(b volume.Backup) []byte {
	r.t.Helper()
	p, err := os.ReadFile(filepath.Join(r.dir+"-backups", b.ID+".nbdbackup"))
	must(r.t, err)
	return p
}

// Rule A30: a backup has its disk's attribute, and its key. Of an encrypted disk it holds no plaintext.
func TestRuleA30_BackupHasTheAttributeOfItsDisk(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	const words = "known plaintext, sixteen times over"
	for _, s := range []volume.Spec{
		{Project: "default", Name: "sealed", Size: 4 * mib, SectorSize: 512, Encrypted: true, Key: "mine"},
		{Project: "default", Name: "open", Size: 4 * mib, SectorSize: 512},
	} {
		d := r.create(s)
		a := r.attach(s.Name)
		write(t, a, bytes.Repeat([]byte(words), 4000), 8192)
		b := r.backup(s.Name, s.Name+"-b")
		if b.Encrypted != s.Encrypted || (b.Key == nil) == s.Encrypted || s.Encrypted && b.Key.ID != d.Key.ID {
			t.Errorf("the backup of %s: %+v", s.Name, b)
		}
		if bytes.Contains(r.backupFile(b), []byte(words)) == s.Encrypted {
			t.Errorf("plaintext of %s stands in its backup: %v", s.Name, !s.Encrypted)
		}
	}
	uses, err := r.keys.Uses(t.Context(), "default", "mine")
	must(t, err)
	if len(uses) != 2 || uses[0].Kind != volume.BackupKind || uses[1].Kind != volume.HolderKind {
		t.Errorf("the key is used by %+v", uses)
	}
}

// An incremental backup has what was written since the one before, zeros too, and a chain restores to each of its points.
func TestIncrementalBackupsRestore(t *testing.T) {
	for _, encrypted := range []bool{true, false} {
		r := newRig(t)
		r.create(volume.Spec{Project: "default", Name: "d", Size: 8 * mib, SectorSize: 512, Encrypted: encrypted})
		a := r.attach("d")
		write(t, a, random(2*mib), mib)
		points := map[string][]byte{"full": r.content("d")}
		full := r.backup("d", "full")
		must(t, a.Device.TrimAt(mib+8192, 100_000))
		write(t, a, []byte("changed"), 2*mib+100)
		write(t, a, random(5000), 7*mib)
		points["second"] = r.content("d")
		second := r.backup("d", "second")
		_, err := r.detach("d")
		must(t, err)
		_, err = r.Extend(t.Context(), "grow", "default", "d", 9*mib)
		must(t, err)
		a = r.attach("d")
		write(t, a, []byte("behind the old end"), 8*mib+500_000)
		points["third"] = r.content("d")
		_, err = r.detach("d")
		must(t, err)
		third := r.backup("d", "third") // of a disk that is not attached
		empty := r.backup("d", "nothing-new")
		points["nothing-new"] = points["third"]
		if full.Full == "" || second.Full != "" || second.Parent != full.ID || third.Parent != second.ID || third.Depth != 2 {
			t.Errorf("the chain: %+v, %+v, %+v", full, second, third)
		}
		if second.Data > 100_000 || third.Data > 20_000 || empty.Data != 0 {
			t.Errorf("they hold %d, %d and %d bytes", second.Data, third.Data, empty.Data)
		}
		for name, want := range points {
			_, err := r.restore(name, volume.Spec{Name: "from-" + name, Encrypted: !encrypted})
			must(t, err)
			r.holds("from-"+name, want)
		}
	}
}

// A chain is restored only if all of it is whole; what is wrong is named, and nothing is made.
func TestDamagedChainIsRefused(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	write(t, a, random(mib), 0)
	full := r.backup("vault", "full")
	write(t, a, []byte("more"), 5)
	next := r.backup("vault", "next")
	pools := len(r.files())
	for name, spoil := range map[string]func(path string, b []byte) error{
		"flipped":  func(path string, b []byte) error { b[len(b)/2] ^= 1; return os.WriteFile(path, b, 0o600) },
		"short":    func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)-1], 0o600) },
		"missing":  func(path string, _ []byte) error { return os.Remove(path) },
		"replaced": func(path string, _ []byte) error { return os.WriteFile(path, r.backupFile(next), 0o600) },
	} {
		whole, path := r.backupFile(full), filepath.Join(r.dir+"-backups", full.ID+".nbdbackup")
		must(t, spoil(path, bytes.Clone(whole)))
		_, err := r.VerifyBackup(t.Context(), "default", "next", func(int64, int64) {})
		wantCode(t, err, refusal.Damaged)
		if !strings.Contains(fmt.Sprint(err), "full") {
			t.Errorf("%s: %v does not name the backup", name, err)
		}
		_, err = r.restore("next", volume.Spec{Name: "again"})
		wantCode(t, err, refusal.Damaged)
		if _, err := r.Get(t.Context(), "default", "again"); refusal.CodeOf(err) != refusal.NotFound || len(r.files()) != pools {
			t.Errorf("%s: a disk was begun: %v, %d files", name, err, len(r.files()))
		}
		must(t, os.WriteFile(path, whole, 0o600))
	}
	list, err := r.VerifyBackup(t.Context(), "default", "next", func(int64, int64) {})
	if err != nil || len(list) != 2 || list[0].Name != "full" {
		t.Errorf("whole again: %+v, %v", list, err)
	}
}

// An older state of a backup's file, whole and signed, does not pass for it.
func TestAnotherBackupInItsPlaceIsFound(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	one, two := r.backup("vault", "one"), r.backup("vault", "two")
	must(t, os.WriteFile(filepath.Join(r.dir+"-backups", two.ID+".nbdbackup"), r.backupFile(one), 0o600))
	_, err := r.VerifyBackup(t.Context(), "default", "two", func(int64, int64) {})
	wantCode(t, err, refusal.Damaged)
}

// Rule B11: backups outlive their disk, with their key; what they were made of goes with it.
func TestRuleB11_BackupsOutliveTheirDisk(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	write(t, a, random(mib), 1000)
	want := r.content("vault")
	r.backup("vault", "kept")
	_, err := r.detach("vault")
	must(t, err)
	must(t, r.Delete(t.Context(), "delete", "default", "vault"))
	if files := r.files(); len(files) != 0 {
		t.Errorf("left in the pool: %v", files)
	}
	r.restart()
	list, err := r.Backups(t.Context(), "default", "vault")
	if err != nil || len(list) != 1 {
		t.Fatalf("of the disk's name: %+v, %v", list, err)
	}
	_, err = r.restore("kept", volume.Spec{Name: "vault", Encrypted: true})
	must(t, err)
	r.holds("vault", want)
	must(t, r.DeleteBackup(t.Context(), "default", "kept"))
	if n := r.records("dek/backup"); n != 0 || len(r.backupFiles()) != 0 {
		t.Errorf("deleted, %d keys and the files %v are left", n, r.backupFiles())
	}
}

// What others stand on is not deleted, and pruning keeps the chains of what it keeps.
func TestPruningKeepsChains(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	for i := range 3 {
		r.backup("vault", fmt.Sprint("a", i))
	}
	_, err := r.CreateBackup(t.Context(), "b0", volume.BackupSpec{Project: "default", Disk: "vault", Name: "b0", Full: true}, volume.Work{})
	must(t, err)
	r.backup("vault", "b1")
	err = r.DeleteBackup(t.Context(), "default", "a1")
	wantCode(t, err, refusal.Busy)
	if !strings.Contains(fmt.Sprint(err), "a2") || strings.Contains(fmt.Sprint(err), "a0") {
		t.Errorf("%v does not name what stands on it", err)
	}
	for keep, want := range map[int]string{0: "b1 b0 a2 a1 a0", 1: "a2 a1 a0", 2: "a2 a1 a0", 3: "", 5: ""} {
		list, err := r.ToPrune(t.Context(), "default", "vault", keep)
		must(t, err)
		var names []string
		for _, b := range list {
			names = append(names, b.Name)
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("to keep %d, %q go, not %q", keep, got, want)
		}
	}
}

// After a rollback or a new key the disk does not stand on the last backup: a full one is made, and said why.
func TestBackupIsFullWhereTheDiskStandsOnSomethingElse(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	write(t, a, random(mib), 0)
	_, err := r.detach("vault")
	must(t, err)
	before := r.content("vault")
	_, err = r.CreateSnapshot(t.Context(), "snap", "default", "vault", "s")
	must(t, err)
	r.backup("vault", "one")
	a = r.attach("vault")
	write(t, a, []byte("gone again"), 0)
	_, err = r.detach("vault")
	must(t, err)
	r.backup("vault", "two")
	_, err = r.Rollback(t.Context(), "rollback", "default", "vault", "s")
	must(t, err)
	b := r.backup("vault", "three")
	if b.Full == "" || b.Parent != "" {
		t.Errorf("after a rollback: %+v", b)
	}
	_, err = r.restore("three", volume.Spec{Name: "back"})
	must(t, err)
	r.holds("back", before)
}

// A key that forbids it forbids backup and restore, before anything is made; the disk's I/O goes on.
func TestRuleA9_BackupsNeedTheKey(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	s := secretDisk
	s.Key = "mine"
	r.create(s)
	a := r.attach("vault")
	write(t, a, []byte("some"), 0)
	r.backup("vault", "b")
	_, err := r.keys.Disable(t.Context(), "off", "default", "mine")
	must(t, err)
	files := len(r.files()) + len(r.backupFiles())
	_, err = r.CreateBackup(t.Context(), "c", volume.BackupSpec{Project: "default", Disk: "vault", Name: "c"}, volume.Work{})
	wantCode(t, err, refusal.KeyForbids)
	_, err = r.restore("b", volume.Spec{Name: "again"})
	wantCode(t, err, refusal.KeyForbids)
	if n := len(r.files()) + len(r.backupFiles()); n != files {
		t.Errorf("%d files are left of it", n-files)
	}
	write(t, a, []byte("more"), 0)
	if _, err := r.VerifyBackup(t.Context(), "default", "b", func(int64, int64) {}); err != nil {
		t.Errorf("verifying needs no key: %v", err)
	}
}

// Cut off by a person or by a crash, a backup leaves nothing, and the next one works.
func TestBackupThatIsCutOffLeavesNothing(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	write(t, a, random(2*mib), 0)
	ctx, cancel := context.WithCancel(t.Context())
	_, err := r.CreateBackup(ctx, "b", volume.BackupSpec{Project: "default", Disk: "vault", Name: "b"},
		volume.Work{Released: func(keystore.Holder, *keystore.KeyVersionRef) error { cancel(); return nil }})
	if err == nil || len(r.backupFiles()) != 0 || r.records("backup") != 1 { // the signing key
		t.Errorf("%v, %v, %d records", err, r.backupFiles(), r.records("backup"))
	}
	if n := r.records("dek/backup"); n != 0 {
		t.Errorf("%d keys are left", n)
	}
	r.backup("vault", "b")
}

// What a crash leaves of a backup, of a restore and of transfers goes at the next start; a transfer that is young waits to go on.
func TestStartCleansUpBackups(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.backup("vault", "whole")
	crash := func(keystore.Holder, *keystore.KeyVersionRef) error {
		part := filepath.Join(r.dir+"-backups", "00000000-0000-4000-8000-000000000000.part")
		must(t, os.WriteFile(part, []byte("half"), 0o600))
		r.restart() // another run of the daemon, as after a kill
		list, err := r.Backups(t.Context(), "default", "")
		if err != nil || len(list) != 1 || list[0].Name != "whole" || len(r.backupFiles()) != 1 || r.records("dek/backup") != 1 {
			t.Errorf("left are %+v, %v, %d keys, %v", list, r.backupFiles(), r.records("dek/backup"), err)
		}
		return os.ErrClosed
	}
	_, err := r.CreateBackup(t.Context(), "cut", volume.BackupSpec{Project: "default", Disk: "vault", Name: "cut"}, volume.Work{Released: crash})
	if err == nil {
		t.Error("a backup whose records are gone was made")
	}
	r.backup("vault", "next")
	_, err = r.BeginRestore(t.Context(), "restore", "next", volume.Spec{Project: "default", Name: "half"}, nil)
	must(t, err)
	young, old := filepath.Join(r.dir+"-backups", "00000000-0000-4000-8000-000000000001.import"), filepath.Join(r.dir+"-backups", "00000000-0000-4000-8000-000000000002.import")
	for _, path := range []string{young, old} {
		must(t, os.WriteFile(path, []byte("half"), 0o600))
	}
	must(t, os.Chtimes(old, time.Time{}, time.Now().Add(-8*24*time.Hour)))
	r.restart()
	if _, err := r.Get(t.Context(), "default", "half"); refusal.CodeOf(err) != refusal.NotFound {
		t.Errorf("half a disk: %v", err)
	}
	if _, err := os.Stat(young); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(old); err == nil {
		t.Error("a transfer that nobody goes on with stays")
	}
}

// While a backup or a restore goes on the disk says so, and nothing else is done with it; its I/O goes on.
func TestRuleB10_StatusWhileBackingUp(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	looked := false
	_, err := r.CreateBackup(t.Context(), "b", volume.BackupSpec{Project: "default", Disk: "vault", Name: "b"}, volume.Work{Released: func(keystore.Holder, *keystore.KeyVersionRef) error {
		looked = true
		d, err := r.Get(t.Context(), "default", "vault")
		if err != nil || d.Status != volume.BackingUp {
			t.Errorf("it is %s, %v", d.Status, err)
		}
		write(t, a, []byte("written meanwhile"), 4096)
		_, err = r.detach("vault")
		wantCode(t, err, refusal.Busy)
		return nil
	}})
	must(t, err)
	res, err := r.BeginRestore(t.Context(), "restore", "b", volume.Spec{Project: "default", Name: "again"}, nil)
	must(t, err)
	if d, err := r.Get(t.Context(), "default", "again"); err != nil || d.Status != volume.RestoringBackup || !looked {
		t.Errorf("it is %s, %v", d.Status, err)
	}
	wantCode(t, r.DeleteBackup(t.Context(), "default", "b"), refusal.Busy)
	_, err = res.Run(t.Context(), "restore", func(int64, int64) {})
	must(t, err)
	r.holds("again", make([]byte, 5000)) // what was written meanwhile is not in it
}
