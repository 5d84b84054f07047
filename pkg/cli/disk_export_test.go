package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

func TestDiskExport(t *testing.T) {
	f := serveFake(t)
	for _, line := range []string{"grant create", "disk create d --size 1M --encrypted", "disk create short --size 1M --encrypted"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "d.img")
	if got := try(t, f.run, "", "disk", "export", "d", path, "--ciphertext"); got.code != int(refusal.Confirm) {
		t.Errorf("without a yes: %+v", got)
	}
	if got := try(t, f.run, "", "disk", "export", "d", path, "--yes"); got.code != int(refusal.Usage) {
		t.Errorf("in clear: %+v", got)
	}
	if got := try(t, f.run, "", "disk", "export", "short", path, "--ciphertext", "--yes"); got.code != int(refusal.Failed) || got.out != "" {
		t.Errorf("one that breaks off: %+v", got)
	}
	if left, _ := os.ReadDir(dir); len(left) != 0 {
		t.Errorf("half an export stays: %v", left)
	}
	got := try(t, f.run, "y\n", "disk", "export", "d", path, "--ciphertext")
	if got.code != 0 || !strings.Contains(got.out, "aes-xts-plain64") || !strings.Contains(got.err, "cryptsetup open --type plain") {
		t.Errorf("%+v", got)
	}
	b, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(b, make([]byte, 1<<20)) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("others may read it: %v, %v", st, err)
	}
	if got := try(t, f.run, "", "disk", "export", "d", path, "--ciphertext", "--yes"); got.code != int(refusal.Busy) {
		t.Errorf("over another file: %+v", got)
	}
}
