package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/backup"
)

// withBackup is a fake with a disk d and its backups b and c.
func withBackup(t *testing.T) *fake {
	t.Helper()
	f := serveFake(t)
	for _, line := range []string{"disk create d --size 8M", "backup create d b", "backup create d c"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	return f
}

// put writes a file of a test.
func put(t *testing.T, name string, p []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, p, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func storeKey(t *testing.T, f *fake) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store.pem")
	if got := try(t, f.run, "", "backup", "key", "--out", path); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	return path
}

// A receiver with the public key, and without a daemon or a secret, finds each spoiled byte, and is told its place.
func TestBackupVerifyWithoutADaemon(t *testing.T) {
	f := withBackup(t)
	key, good := storeKey(t, f), f.files[0]
	nowhere := t.TempDir()
	path := put(t, "b", good)
	if got := try(t, nowhere, "", "backup", "verify", path, "--public-key", key); got.code != 0 || !strings.Contains(got.out, "b is whole: full, of disk d") {
		t.Errorf("%+v", got)
	}
	if got := try(t, nowhere, string(good), "backup", "verify", "-", "--public-key", key); got.code != 0 {
		t.Errorf("from stdin: %+v", got)
	}
	for at, says := range map[int]string{300: "header", backup.HeaderSize + 70: "page 0", backup.HeaderSize + backup.PageSize + 5000: "chunk 0 of page 0", len(good) - 10: "trailer"} {
		spoiled := bytes.Clone(good)
		spoiled[at] ^= 1
		if got := try(t, nowhere, "", "backup", "verify", put(t, "b", spoiled), "--public-key", key); got.code != 8 || !strings.Contains(got.err, says) {
			t.Errorf("byte %d: %+v", at, got)
		}
	}
	if got := try(t, nowhere, "", "backup", "verify", put(t, "b", good[:70_000]), "--public-key", key); got.code != 8 || !strings.Contains(got.err, "ends at byte 70000") {
		t.Errorf("cut: %+v", got)
	}
	if got := try(t, nowhere, "", "backup", "verify", path, "--public-key", path); got.code != 2 {
		t.Errorf("a key that is none: %+v", got)
	}
	if got := try(t, nowhere, "", "backup", "verify", "none", "--public-key", key); got.code != 3 {
		t.Errorf("no file: %+v", got)
	}
}

// An export that broke off stays, and --resume goes on with it; the whole is verified.
func TestBackupExportGoesOn(t *testing.T) {
	f := withBackup(t)
	path := filepath.Join(t.TempDir(), "b")
	f.breaks = 72_000
	if got := try(t, f.run, "", "backup", "export", "b", path); got.code != 1 || !strings.Contains(got.err, "--resume") {
		t.Fatalf("broken off: %+v", got)
	}
	f.breaks, f.asked = 0, nil
	f.elsewhere = true // another store's backup is verified by that store's key
	if got := try(t, f.run, "", "backup", "export", "b", path); got.code != 6 {
		t.Errorf("over a file that is there: %+v", got)
	}
	if got := try(t, f.run, "", "backup", "export", "c", path, "--resume"); got.code != 6 {
		t.Errorf("with another backup's file: %+v", got)
	}
	if got := try(t, f.run, "", "backup", "export", "b", path, "--resume"); got.code != 0 {
		t.Fatalf("%+v", got)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, f.files[0]) {
		t.Errorf("it is not the backup: %d bytes, %v", len(got), err)
	}
	if !strings.Contains(strings.Join(f.asked, "\n"), "from=72000") {
		t.Errorf("asked %q", f.asked)
	}
	// What was there is not trusted.
	spoiled := bytes.Clone(f.files[0][:72_000])
	spoiled[5000] ^= 1
	if got := try(t, f.run, "", "backup", "export", "b", put(t, "b", spoiled), "--resume"); got.code != 8 {
		t.Errorf("spoiled: %+v", got)
	}
	if got := try(t, f.run, "", "backup", "export", "none", filepath.Join(t.TempDir(), "x")); got.code != 3 {
		t.Errorf("%+v", got)
	}
	if got := try(t, f.run, "", "backup", "export", "b", "-"); got.code != 0 || got.out != string(f.files[0]) {
		t.Errorf("to stdout: %d, %d bytes, %s", got.code, len(got.out), got.err)
	}
}

// An import sends what is not there yet, from a file and from stdin.
func TestBackupImportGoesOn(t *testing.T) {
	f := withBackup(t)
	file := f.files[0]
	for _, have := range []int64{0, backup.HeaderSize, 70_001} {
		want := append(bytes.Clone(file[:backup.HeaderSize]), file[have:]...)
		for _, from := range []string{put(t, "b", file), "-"} {
			f.have, f.imported = have, nil
			got := try(t, f.run, string(file), "backup", "import", from)
			if got.code != 0 || !bytes.Equal(f.imported, want) {
				t.Errorf("%s, %d there: %+v, %d bytes came", from, have, got, len(f.imported))
			}
			if strings.Contains(got.err, "going on at byte") != (have > 0) {
				t.Errorf("%d there: %q", have, got.err)
			}
		}
	}
	f.asked = nil
	for _, p := range [][]byte{nil, file[:5000], file[:100], append(bytes.Clone(file), 1), bytes.Repeat([]byte("x"), 9000)} {
		if got := try(t, f.run, "", "backup", "import", put(t, "b", p)); got.code != 8 {
			t.Errorf("%d bytes: %+v", len(p), got)
		}
	}
	if len(f.asked) > 0 {
		t.Errorf("the daemon was asked %q", f.asked)
	}
}

// An import that somebody interrupts says that it goes on where it was.
func TestBackupImportIsInterrupted(t *testing.T) {
	f := withBackup(t)
	ctx, cancel := context.WithCancel(context.Background())
	in := io.MultiReader(bytes.NewReader(f.files[0][:70_000]), readerFunc(func([]byte) (int, error) {
		cancel()
		<-ctx.Done()
		return 0, ctx.Err()
	}))
	var out, errs bytes.Buffer
	a := &app{hooks: Hooks{Env: env(f.run)}, isTerminal: func(any) bool { return false }}
	if code := a.main(ctx, []string{"backup", "import", "-"}, in, &out, &errs); code != 1 || !strings.Contains(errs.String(), "goes on where it was") {
		t.Errorf("%d %s", code, errs.String())
	}
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// Who names files and forgets the key is told so.
func TestBackupVerifyOfFilesNeedsTheKey(t *testing.T) {
	f := withBackup(t)
	path := put(t, "x.nbdbackup", f.files[0])
	if got := try(t, f.run, "", "backup", "verify", path); got.code != 3 || !strings.Contains(got.err, "--public-key") {
		t.Errorf("%+v", got)
	}
	if got := try(t, f.run, "", "backup", "verify", path, path); got.code != 2 || !strings.Contains(got.err, "--public-key") {
		t.Errorf("%+v", got)
	}
	if got := try(t, f.run, "", "backup", "verify", "none"); got.code != 3 || strings.Contains(got.err, "--public-key") {
		t.Errorf("%+v", got)
	}
}
