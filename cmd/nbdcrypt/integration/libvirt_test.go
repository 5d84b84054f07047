//go:build integration

package integration

import (
	"os"
	"testing"

	"libvirt.org/go/libvirtxml"

	"nbdcrypt/pkg/control"
)

// Libvirt's schema has nothing against what is printed of a server, with a network and without; its disks open by what the domain calls them, and hold what they should.
func TestDomainIsLibvirts(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	file := source(t, d.dir)
	d.do("project", "create", "shop")
	d.do("image", "create", "base", "--from-file", file, "--plain", "--project=shop")
	d.do("server", "create", "web", "--image=base", "--data-disk=size=1M,plain", "--memory=512M", "--cpus=2", "--project=shop")
	d.do("server", "create", "alone", "--image=base", "--network=none", "--project=shop")
	for _, server := range []string{"web", "alone"} {
		text := d.do("server", "show", server, "--libvirt", "--project=shop")
		path := d.dir + "/" + server + ".xml"
		check(t, os.WriteFile(path, []byte(text), 0o600))
		tool(t, "virt-xml-validate", path, "domain")
		var domain libvirtxml.Domain
		check(t, domain.Unmarshal(text))
		s := get[control.Server](d, "server", "show", server, "--project=shop")
		if domain.UUID != s.ID || len(domain.Devices.Disks) != len(s.Disks) || (len(domain.Devices.Interfaces) == 0) != (server == "alone") {
			t.Errorf("the domain of %+v is %s", s, text)
		}
		d.do("attach", s.Disks[0].Name, "--read-only", "--project=shop")
		system := domain.Devices.Disks[0].Source.Network
		tool(t, "qemu-img", "compare", "-f", "raw", "-F", "raw", control.URI(system.Name, system.Hosts[0].Socket), file)
		d.do("detach", s.Disks[0].Name, "--project=shop")
	}
}
