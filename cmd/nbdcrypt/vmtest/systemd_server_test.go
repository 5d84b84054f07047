//go:build vm && long

package vmtest

import (
	"os"
	"path/filepath"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// TestSystemdServer: a server as its unit is shipped: it runs with what the unit leaves it of the machine, goes on when the daemon is restarted, comes again when its QEMU was killed, and stays
// away when it has shut itself down.
func TestSystemdServer(t *testing.T) {
	t.Parallel()
	root := t.TempDir() + "/root"
	copied := func(from, to string) machine.File {
		text, err := os.ReadFile(from)
		check(t, err)
		return machine.File{Path: to, Mode: 0o644, Content: text}
	}
	const units = "/etc/systemd/system/"
	logs := machine.File{Path: units + "service.d/10.conf", Mode: 0o644, Content: []byte("[Service]\nStandardOutput=append:/var/log/%n\nStandardError=append:/var/log/%n\n")}
	files := []machine.File{
		copied("../nbdcrypt.service", units+"nbdcrypt.service"), copied("../nbdcrypt-server@.service", units+"nbdcrypt-server@.service"), logs,
		{Path: units + "multi-user.target.d/10.conf", Mode: 0o644, Content: []byte("[Unit]\nWants=nbdcrypt.service\n")},
		{Path: "/etc/nbdcrypt/server/s1.conf", Mode: 0o644, Content: []byte("NBDCRYPT_SERVER=--reconnect 10m\n")},
		{Path: "/srv/image", Mode: 0o644, Content: oneSector(t, "these are the words of one\n")},
		copied("/usr/share/seabios/bios-256k.bin", "/usr/share/seabios/bios-256k.bin"), copied("/usr/share/qemu/kvmvapic.bin", "/usr/share/qemu/kvmvapic.bin"),
	}
	modules, err := filepath.Glob("/usr/lib/*/qemu/accel-tcg-*.so")
	check(t, err)
	for _, module := range modules {
		files = append(files, copied(module, module))
	}
	check(t, machine.SystemdRoot(root, files, "qemu-system-x86_64"))
	m := machine.Start(t, machine.Options{Memory: "768M", Disks: []machine.Disk{{Source: root, Serial: "root", Cache: "unsafe"}}, Append: machine.Systemd})
	m.Run(`for i in $(seq 600); do ! systemctl is-active -q nbdcrypt 2>/dev/null || break; sleep 0.2; done
		nbdcrypt grant create
		nbdcrypt image create one --from-file /srv/image --encrypted
		nbdcrypt server create s1 --image one --memory 64M
		systemctl start nbdcrypt-server@s1 || { cat /var/log/nbdcrypt*; exit 1; }`)
	pid := func() string {
		return m.Run(`for i in $(seq 600); do
				pid=$(nbdcrypt server show s1 --json | sed -n 's/.*"pid": \([0-9]*\),.*/\1/p')
				[ -z "$pid" ] || ! nbdcrypt server console s1 --log | grep -q 'these are the words of one' || { echo $pid; exit 0; }
				sleep 0.2
			done
			nbdcrypt server show s1; systemctl status nbdcrypt-server@s1; cat /var/log/nbdcrypt*; exit 1`)
	}
	first := pid()
	if m.Run("systemctl restart nbdcrypt"); pid() != first {
		t.Error("the daemon's restart ended the server")
	}
	m.Run("kill -9 " + first)
	m.Run(`for i in $(seq 600); do [ "$(nbdcrypt server show s1 --json | sed -n 's/.*"pid": \([0-9]*\),.*/\1/p')" = ` + "$(echo " + first + `) ] || exit 0; sleep 0.2; done; exit 1`)
	if second := pid(); second == first {
		t.Error("it did not come again")
	}
	m.Run(`(printf o; sleep 20) | nbdcrypt server console s1 >/dev/null
		for i in $(seq 600); do ! systemctl is-active -q nbdcrypt-server@s1 || { sleep 0.2; continue; }; break; done
		[ "$(systemctl show -p Result --value nbdcrypt-server@s1)" = success ] || { systemctl status nbdcrypt-server@s1; exit 1; }
		nbdcrypt server show s1 | grep 'the guest shut down'
		nbdcrypt disk show s1-system | grep available`)
}
