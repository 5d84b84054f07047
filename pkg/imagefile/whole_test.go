package imagefile

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// QEMU reads zeros where a file ends before its data: such a file is refused, and one that is whole is not.
func TestRuleA33_CutFilesOfOtherFormatsAreRefused(t *testing.T) {
	if _, err := exec.LookPath("qemu-img"); err != nil {
		t.Skip(err)
	}
	dir := t.TempDir()
	raw := filepath.Join(dir, "raw")
	disk := bytes.Repeat([]byte("what a disk has "), 300*512/16)
	must(t, os.WriteFile(raw, disk, 0o600))
	must(t, os.Truncate(raw, 5<<20+512)) // a hole, and then an end
	f, err := os.OpenFile(raw, os.O_WRONLY, 0)
	must(t, err)
	_, err = f.WriteAt([]byte("the end"), 5<<20)
	must(t, err)
	must(t, f.Close())
	want, err := os.ReadFile(raw)
	must(t, err)
	for _, format := range []string{VMDK, VHDX, VDI} {
		path := filepath.Join(dir, "image")
		out, err := exec.Command("qemu-img", "convert", "-f", "raw", "-O", format, raw, path).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		i, err := Open(t.Context(), path, Auto, nil)
		must(t, err)
		if got, _ := copied(t, i); !bytes.Equal(got[:len(want)], want) {
			t.Errorf("%s reads otherwise", format)
		}
		must(t, i.Close())
		info, err := os.Stat(path)
		must(t, err)
		must(t, os.Truncate(path, info.Size()/2))
		_, err = Open(t.Context(), path, Auto, nil)
		wantCode(t, err, refusal.Damaged)
	}
}
