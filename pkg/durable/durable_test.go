package durable_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"nbdcrypt/pkg/durable"
)

// That the syncs reach the disk only a power cut shows; here they answer, and say what they could not do.
func TestErrorsAreTold(t *testing.T) {
	dir := t.TempDir()
	if err := durable.Dir(dir); err != nil {
		t.Error(err)
	}
	if err := durable.Dir(filepath.Join(dir, "nothing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a folder that is not there: %v", err)
	}
	f, err := os.Create(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if err := durable.Data(f); err != nil {
		t.Error(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := durable.Data(f); err == nil {
		t.Error("a closed file was synced")
	}
}
