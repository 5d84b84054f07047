package vm

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"nbdcrypt/pkg/control"
)

// The descriptors that QEMU inherits, so that neither has a name or a length.
const (
	monitorFD = 3
	consoleFD = 4
)

// openTime is how long QEMU tries to open a disk, in seconds: exports open a moment after the lease was taken.
const openTime = 5

// hardware is what QEMU is to be.
type hardware struct {
	server      control.Server
	disks       []drive
	accelerator string
	wait        time.Duration // how long requests to a disk wait for a daemon
}

// arguments are QEMU's. Guests see disks as on other clouds: virtio, the first one with the system, each with its id's beginning as serial number.
func arguments(h hardware) []string {
	name := comma(h.server.Name)
	args := []string{
		"-nodefaults", "-no-user-config", "-name", "guest=" + name, "-S", "-display", "none",
		// The guest's memory is in no dump; without graphics the firmware speaks on the console.
		"-machine", "q35,dump-guest-core=off,graphics=off", "-accel", h.accelerator, "-cpu", "max,arch-capabilities=off",
		"-smp", fmt.Sprint(h.server.CPUs), "-m", fmt.Sprintf("%dM", h.server.Memory>>20), "-uuid", h.server.ID,
		"-smbios", fmt.Sprintf("type=1,serial=%s,uuid=%s", name, h.server.ID),
		"-smbios", "type=11,value=io.systemd.credential:system.hostname=" + name,
		"-chardev", fmt.Sprintf("socket,id=monitor,fd=%d", monitorFD), "-mon", "chardev=monitor,mode=control",
		"-chardev", fmt.Sprintf("socket,id=console,fd=%d", consoleFD), "-serial", "chardev:console",
		"-device", "virtio-rng-pci", "-boot", "strict=on",
		"-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
	}
	if h.server.Network == control.NetworkNone {
		args = append(args, "-nic", "none")
	} else {
		// Without a ROM: nothing boots from there.
		args = append(args, "-netdev", "user,id=net", "-device", "virtio-net-pci,netdev=net,romfile=")
	}
	for port := range ports {
		args = append(args, "-device", fmt.Sprintf("pcie-root-port,id=port%d,chassis=%d,slot=%[2]d", port, port+1))
	}
	for _, d := range h.disks {
		args = append(args, "-blockdev", text(blockdev(d, h.wait)), "-device", text(device(d)))
	}
	return args
}

// comma escapes what QEMU takes apart at commas.
func comma(s string) string { return strings.ReplaceAll(s, ",", ",,") }

func text(v map[string]any) string {
	b, _ := json.Marshal(v) // strings, numbers and truths
	return string(b)
}

// blockdev is QEMU's end of a disk. Others see what the export is called, in the list of processes: what keeps them out is that the daemon asks who connects. QEMU 7.2
// opens one connection for each disk, however many the export would take.
func blockdev(d drive, wait time.Duration) map[string]any {
	return map[string]any{
		"driver": "nbd", "node-name": d.node(), "server": map[string]any{"type": "unix", "path": d.Socket}, "export": d.Export,
		"discard": "unmap", "cache": map[string]any{"direct": true}, "read-only": d.ReadOnly,
		"open-timeout": openTime, "reconnect-delay": int(wait / time.Second),
	}
}

// device is the guest's end of a disk.
func device(d drive) map[string]any {
	v := map[string]any{"driver": "virtio-blk-pci", "id": d.device(), "drive": d.node(), "bus": d.bus(), "serial": d.DiskID[:min(20, len(d.DiskID))]}
	if d.Role == control.SystemDisk {
		v["bootindex"] = 1
	}
	if d.BlockSize > 512 { // a hint: what boots a PC wants sectors of 512 bytes
		v["physical_block_size"] = d.BlockSize
	}
	return v
}
