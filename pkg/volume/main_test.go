package volume_test

import (
	"os"
	"testing"

	"nbdcrypt/pkg/child"
)

// TestMain makes this program what backups are signed in, too.
func TestMain(m *testing.M) {
	if child.Main() {
		return
	}
	os.Exit(m.Run())
}
