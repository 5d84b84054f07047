// Package libvirt describes a server as a domain of libvirt's, for people who attach its disks themselves and run it there.
package libvirt

import (
	"fmt"
	"slices"

	"libvirt.org/go/libvirtxml"

	"nbdcrypt/pkg/control"
)

// Domain is the XML of a domain whose disks are the exports on a socket, as they are called when they are attached by hand. There is no word in it of waiting for a
// daemon that went: what is attached anew by hand may be another state of the disk.
func Domain(s control.Server, socket string) (string, error) {
	d := libvirtxml.Domain{
		Type: "kvm", Name: s.Name, UUID: s.ID,
		Memory:   &libvirtxml.DomainMemory{Value: uint(s.Memory >> 10), Unit: "KiB", DumpCore: "off"},
		VCPU:     &libvirtxml.DomainVCPU{Value: uint(s.CPUs)},
		OS:       &libvirtxml.DomainOS{Type: &libvirtxml.DomainOSType{Arch: "x86_64", Machine: "q35", Type: "hvm"}},
		Features: &libvirtxml.DomainFeatureList{ACPI: &libvirtxml.DomainFeature{}, APIC: &libvirtxml.DomainFeatureAPIC{}},
		CPU:      &libvirtxml.DomainCPU{Mode: "maximum"},
		Devices:  &libvirtxml.DomainDeviceList{Disks: disks(s, socket)},
	}
	serial := uint(0)
	pty := &libvirtxml.DomainChardevSource{Pty: &libvirtxml.DomainChardevSourcePty{}}
	d.Devices.Consoles = []libvirtxml.DomainConsole{{Source: pty, Target: &libvirtxml.DomainConsoleTarget{Type: "serial", Port: &serial}}}
	d.Devices.RNGs = []libvirtxml.DomainRNG{{Model: "virtio", Backend: &libvirtxml.DomainRNGBackend{Random: &libvirtxml.DomainRNGBackendRandom{Device: "/dev/urandom"}}}}
	if s.Network != control.NetworkNone {
		d.Devices.Interfaces = []libvirtxml.DomainInterface{{
			Source: &libvirtxml.DomainInterfaceSource{User: &libvirtxml.DomainInterfaceSourceUser{}}, Model: &libvirtxml.DomainInterfaceModel{Type: "virtio"},
		}}
	}
	text, err := d.Marshal()
	if err != nil {
		return "", fmt.Errorf("libvirt: writing the domain: %w", err)
	}
	return text + "\n", nil
}

// disks are the server's, the system disk first, which is what firmware and guest take for the first.
func disks(s control.Server, socket string) (all []libvirtxml.DomainDisk) {
	order := slices.Clone(s.Disks)
	slices.SortStableFunc(order, func(a, b control.ServerDisk) int { return rank(a) - rank(b) })
	for i, disk := range order {
		d := libvirtxml.DomainDisk{
			Device: "disk", Serial: disk.ID[:min(20, len(disk.ID))],
			Driver: &libvirtxml.DomainDiskDriver{Name: "qemu", Type: "raw", Cache: "none", Discard: "unmap"},
			Source: &libvirtxml.DomainDiskSource{Network: &libvirtxml.DomainDiskSourceNetwork{
				Protocol: "nbd", Name: control.ExportName(s.Project, disk.Name), Hosts: []libvirtxml.DomainDiskSourceHost{{Transport: "unix", Socket: socket}},
			}},
			Target: &libvirtxml.DomainDiskTarget{Dev: "vd" + string(rune('a'+i)), Bus: "virtio"},
		}
		if disk.Role == control.SystemDisk {
			d.Boot = &libvirtxml.DomainDeviceBoot{Order: 1}
		}
		all = append(all, d)
	}
	return all
}

func rank(d control.ServerDisk) int {
	if d.Role == control.SystemDisk {
		return 0
	}
	return 1
}
