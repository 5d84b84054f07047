package daemon

import (
	"os"
	"testing"

	"nbdcrypt/pkg/child"
)

// TestMain makes this program what passphrases are worked on in, too.
func TestMain(m *testing.M) {
	if child.Main() {
		return
	}
	code := m.Run()
	_ = os.RemoveAll(templateDir)
	os.Exit(code)
}
