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
	for _, name := range []string{"nbdcrypt.service", "nbdcrypt.socket", "nbdcrypt-attach@.service", "nbdcrypt-server@.service"} {
		// It wants the program to exist.
		unit := strings.Replace(string(readFile(t, "../"+name)), "ExecStart=/usr/local/bin/nbdcrypt", "ExecStart="+program, 1)
		writeFile(t, dir+"/"+name, []byte(unit))
	}
	units := []string{"verify", dir + "/nbdcrypt.service", dir + "/nbdcrypt.socket", dir + "/nbdcrypt-attach@db1.service", dir + "/nbdcrypt-server@web1.service"}
	if out, err := exec.Command("systemd-analyze", units...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}
