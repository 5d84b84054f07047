package libvirt

import (
	"os"
	"strings"
	"testing"

	"libvirt.org/go/libvirtxml"

	"nbdcrypt/pkg/control"
)

func web1() control.Server {
	return control.Server{ID: "6f1d2c3b-4a59-4687-8796-a5b4c3d2e1f0", Name: "web1", Project: "shop", CPUs: 2, Memory: 1 << 30, Network: control.NetworkUser, Disks: []control.ServerDisk{
		{Role: control.DataDisk, ID: "7f1d2c3b-4a59-4687-8796-a5b4c3d2e1f0", Name: "web1-data-1"},
		{Role: control.SystemDisk, ID: "8f1d2c3b-4a59-4687-8796-a5b4c3d2e1f0", Name: "web1-system"},
	}}
}

// The whole domain; libvirt's schema is held against such a one in cmd/nbdcrypt/integration.
func TestDomain(t *testing.T) {
	got, err := Domain(web1(), "/run/nbdcrypt/nbd.sock")
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile("testdata/web1.xml")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the domain is\n%s", got)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(got); err != nil || d.Devices.Disks[0].Source.Network.Name != "shop/web1-system" {
		t.Errorf("%v: %+v", err, d)
	}
}

// A name can hold nothing that becomes more than a name, and a server no network.
func TestDomainEscapes(t *testing.T) {
	s := web1()
	s.Project, s.Network = control.DefaultProject, control.NetworkNone
	s.Disks[0].Name = `a"><b>&`
	text, err := Domain(s, `/run/<x>"&/nbd.sock`)
	if err != nil || strings.Contains(text, "<interface") || strings.Contains(text, "<b>") || strings.Contains(text, "<x>") {
		t.Error(text, err)
	}
	var d libvirtxml.Domain
	if err := d.Unmarshal(text); err != nil {
		t.Fatal(err)
	}
	if source := d.Devices.Disks[1].Source.Network; source.Name != s.Disks[0].Name || source.Hosts[0].Socket != `/run/<x>"&/nbd.sock` {
		t.Errorf("%+v", source)
	}
}
