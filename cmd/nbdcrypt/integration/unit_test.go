//go:build integration

package integration

import (
	"os/exec"
	"strings"
	"testing"
)

// TestUnitIsUnderstood: systemd itself finds nothing to say of the unit.
func TestUnitIsUnderstood(t *testing.T) {
	t.Parallel()
	// It wants the program to exist.
	unit := strings.Replace(string(readFile(t, "../nbdcrypt.service")), "/usr/local/bin/nbdcrypt", program, 1)
	path := tempDir(t) + "/nbdcrypt.service"
	writeFile(t, path, []byte(unit))
	if out, err := exec.Command("systemd-analyze", "verify", path).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
