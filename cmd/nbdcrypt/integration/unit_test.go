//go:build integration

package integration

import (
	"os/exec"
	"strings"
	"testing"
)

// TestUnitIsUnderstood: systemd itself finds nothing to say of the units.
func TestUnitIsUnderstood(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	// It wants the program to exist.
	unit := strings.Replace(string(readFile(t, "../nbdcrypt.service")), "/usr/local/bin/nbdcrypt", program, 1)
	writeFile(t, dir+"/nbdcrypt.service", []byte(unit))
	writeFile(t, dir+"/nbdcrypt.socket", readFile(t, "../nbdcrypt.socket"))
	if out, err := exec.Command("systemd-analyze", "verify", dir+"/nbdcrypt.service", dir+"/nbdcrypt.socket").CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
