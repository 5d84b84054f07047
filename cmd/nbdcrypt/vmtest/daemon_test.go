//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"os"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// serve starts the daemon in the guest and waits until it is ready. It is pid $(cat /run/daemon.pid), and speaks into /run/daemon.log.
func serve(m *machine.Machine, flags string) { serveAfter(m, "", flags) }

// serveAfter is serve in a shell that ran something first, as what the daemon inherits.
func serveAfter(m *machine.Machine, first, flags string) {
	m.Run(first + fmt.Sprintf(`
		>/run/daemon.out
		nbdcrypt serve %s >/run/daemon.out 2>>/run/daemon.log &
		echo $! >/run/daemon.pid
		until grep -q '^ready ' /run/daemon.out; do
			kill -0 $! || { cat /run/daemon.log; exit 1; }
			sleep 0.05
		done`, flags))
}

// withPool starts a machine that has the daemon's files on a disk of their own, formatted with ext4.
func withPool(t *testing.T, size string, o machine.Options) *machine.Machine {
	t.Helper()
	disk := t.TempDir() + "/pool"
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	o.Disks = append(o.Disks, machine.Disk{Source: disk, Serial: "pool", Cache: "unsafe"})
	tool(t, "truncate", "-s", size, disk)
	tool(t, "mkfs.ext4", "-q", disk)
	m := machine.Start(t, o)
	m.Run("mkdir -p /var/lib/nbdcrypt; mount /dev/disk/by-serial/pool /var/lib/nbdcrypt; chmod 700 /var/lib/nbdcrypt")
	return m
}

// get runs a command with --json in the guest and returns its result.
func get[T any](t *testing.T, m *machine.Machine, command string) (result T) {
	t.Helper()
	out := m.Run("nbdcrypt " + command + " --json 2>/run/stderr || { cat /run/stderr; exit 1; }")
	if err := json.Unmarshal([]byte(out), &result); err != nil {
		t.Fatalf("nbdcrypt %s: %v\n%s", command, err, out)
	}
	return result
}
