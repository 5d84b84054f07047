package demo

import (
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"nbdcrypt/pkg/refusal"
)

// bootable is what a server that boots takes from this machine.
type bootable struct {
	programs map[string]string // their paths, by name
	bootCode string            // of syslinux, for the first sector
	kernel   string
	lacking  []string // why there can be no such server, and what helps
}

// bootTools are what makes and boots an image, with the Debian packages that have them.
func bootTools() [][2]string {
	return [][2]string{{"qemu-system-x86_64", "qemu-system-x86"}, {"syslinux", "syslinux"}, {"mcopy", "mtools"}, {"mkfs.vfat", "dosfstools"}}
}

// bootCodes are where syslinux's code for the first sector lies, here and there.
var bootCodes = []string{"/usr/lib/SYSLINUX/mbr.bin", "/usr/lib/syslinux/mbr.bin", "/usr/lib/syslinux/bios/mbr.bin", "/usr/share/syslinux/mbr.bin"}

// findBootable looks for all of it. A kernel that is named is taken as it is.
func findBootable(self, kernel string) bootable {
	b := bootable{programs: map[string]string{}, kernel: kernel}
	if runtime.GOARCH != "amd64" {
		b.lacking = append(b.lacking, "servers are x86-64 machines, and this program, which is to run in one, is built for "+runtime.GOARCH)
		return b
	}
	if !static(self) {
		b.lacking = append(b.lacking, "this program needs libraries, and is to be all of a system (`make build` makes one that needs none)")
	}
	b.findTools()
	if b.kernel == "" {
		b.kernel = newestKernel()
	}
	if b.kernel == "" {
		b.lacking = append(b.lacking, "no kernel can be read in /boot (name one by --kernel; `apt install linux-image-amd64` on Debian has one)")
	}
	return b
}

// lookPath finds a program also where only root's $PATH leads: making a file system in a file takes no rights.
func lookPath(name string) string {
	for _, one := range []string{name, "/usr/sbin/" + name, "/sbin/" + name} {
		if path, err := exec.LookPath(one); err == nil {
			return path
		}
	}
	return ""
}

// findTools looks for programs, and for syslinux's boot code.
func (b *bootable) findTools() {
	var tools, packages []string
	for _, need := range bootTools() {
		path := lookPath(need[0])
		if path == "" {
			tools, packages = append(tools, need[0]), append(packages, need[1])
			continue
		}
		b.programs[need[0]] = path
	}
	i := slices.IndexFunc(bootCodes, func(path string) bool { return !missing(path) })
	if i >= 0 {
		b.bootCode = bootCodes[i]
	} else if !slices.Contains(tools, "syslinux") {
		tools, packages = append(tools, bootCodes[0]), append(packages, "syslinux")
	}
	if len(tools) > 0 {
		b.lacking = append(b.lacking, lackingText(tools, packages))
	}
}

// newestKernel is the one in /boot that came last and may be read, empty where there is none.
func newestKernel() (newest string) {
	var came int64
	paths, _ := filepath.Glob("/boot/vmlinuz-*") // the pattern is well-formed
	for _, path := range paths {
		file, err := os.Open(path)
		if err != nil {
			continue
		}
		info, err := file.Stat()
		file.Close()
		if err == nil && info.Mode().IsRegular() && info.ModTime().UnixNano() > came {
			newest, came = path, info.ModTime().UnixNano()
		}
	}
	return newest
}

// static tells whether a program runs where there is no other file.
func static(path string) bool {
	file, err := elf.Open(path)
	if err != nil {
		return false
	}
	defer file.Close()
	return !slices.ContainsFunc(file.Progs, func(p *elf.Prog) bool { return p.Type == elf.PT_INTERP })
}

// readable tells whether a kernel that was named can be had.
func readable(kernel string) error {
	if kernel == "" {
		return nil
	}
	file, err := os.Open(kernel)
	if err != nil {
		return refusal.New(refusal.Usage, "name a Linux kernel, as they lie in /boot", "demo: --kernel: %w", err)
	}
	return file.Close()
}

func lackingText(tools, packages []string) string {
	return fmt.Sprintf("not found in $PATH: %s (`apt install %s` on Debian)", strings.Join(tools, ", "), strings.Join(packages, " "))
}
