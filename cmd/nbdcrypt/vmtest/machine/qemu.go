package machine

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"strings"

	"nbdcrypt/cmd/nbdcrypt/vmtest/wire"
)

// quiet is what the kernel is told: what costs time under emulation and shows nothing here is left out, a panic ends the machine.
// memfd_secret has to be allowed in this kernel.
const quiet = "console=ttyS0 quiet panic=-1 secretmem.enable=1 random.trust_cpu=on mitigations=off nokaslr cryptomgr.notests audit=0 " +
	"rcupdate.rcu_expedited=1 no_timer_check"

// arguments are QEMU's.
func arguments(o Options, dir, initramfs string) []string {
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35,accel=tcg", "-cpu", "max",
		"-m", cmp.Or(o.Memory, "512M"), "-smp", fmt.Sprint(cmp.Or(o.CPUs, 2)),
		"-serial", "file:" + dir + "/console",
		"-qmp", "unix:" + dir + "/qmp,server=on,wait=off",
		"-device", "virtio-serial-pci", "-chardev", "socket,id=agent,server=on,wait=off,path=" + dir + "/agent",
		"-device", "virtserialport,chardev=agent,name=" + wire.Port,
	}
	if !o.FromDisk {
		args = append(args, "-kernel", prepared.kernel.image, "-initrd", initramfs, "-append", strings.TrimSpace(quiet+" "+o.Append))
	} // else the firmware takes the first disk
	for i, d := range o.Disks {
		readOnly := map[bool]string{true: "on", false: "off"}[d.ReadOnly]
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=disk%d,format=raw,cache=%s,discard=unmap,readonly=%s,file=%s", i, cmp.Or(d.Cache, "writeback"), readOnly,
				strings.ReplaceAll(d.Source, ",", ",,")),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=disk%d,serial=%s", i, d.Serial))
	}
	return args
}

// withFiles is the initramfs with more files: a copy of it, followed by an archive of theirs.
func withFiles(path string, files []File) (string, error) {
	if len(files) == 0 {
		return prepared.initramfs, nil
	}
	to, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer to.Close()
	from, err := os.Open(prepared.initramfs)
	if err != nil {
		return "", err
	}
	defer from.Close()
	if _, err := io.Copy(to, from); err != nil {
		return "", err
	}
	s := newTree()
	for _, f := range files {
		s.file(f.Path, f.Mode, f.Content)
	}
	return path, s.archive(to)
}
