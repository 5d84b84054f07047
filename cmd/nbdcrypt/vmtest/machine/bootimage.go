package machine

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
)

// A bootable disk has these partitions, at these places of it.
const (
	bootAt, bootSize = 1 << 20, 40 << 20
	rootAt, rootSize = bootAt + bootSize, 24 << 20
	bootCodeSize     = 440 // of the first sector; the table of partitions follows
)

// bootConfig has syslinux say on the serial console what it does, and start the kernel; the guest then goes over to the root partition.
const bootConfig = "SERIAL 0 115200\nDEFAULT linux\nLABEL linux\n KERNEL vmlinuz\n INITRD initrd\n APPEND %s guest.root=/dev/vda2 %s\n"

// serverScript is where a server's image has the script that the guest runs.
const serverScript = "/etc/server"

// BootImage makes an image of a disk that boots by itself, as a server's does: syslinux in the first sector and on a FAT partition with kernel and initramfs, and an
// ext4 partition with the root of a small system, where the guest is init. It needs no root.
func BootImage(path string) error {
	return image{path: path, modules: []string{"virtio_pci", "virtio_blk", "virtio_console"}}.make()
}

// ServerImage makes an image like that for a server, which has a serial console and nobody else to talk to: the guest runs a script there, and goes off at the end
// of it, or when the power button is pressed. The root has some more files.
func ServerImage(path, script string, files ...File) error {
	files = append(files, File{Path: serverScript, Mode: 0o755, Content: []byte(script)})
	return image{path: path, modules: []string{"virtio_pci", "virtio_blk", "button", "evdev"}, append: "guest.server=" + serverScript, files: files}.make()
}

// image is one that is made.
type image struct {
	path    string
	modules []string // that the kernel needs
	append  string   // to the kernel's command line
	files   []File   // in the root, beside what is always there
}

func (i image) make() error {
	dir, err := os.MkdirTemp(prepared.dir, "image")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	if err := errors.Join(i.bootPartition(dir), i.rootPartition(dir)); err != nil {
		return err
	}
	f, err := os.Create(i.path)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := errors.Join(f.Truncate(rootAt+rootSize), place(f, dir+"/boot", bootAt), place(f, dir+"/root", rootAt)); err != nil {
		return err
	}
	table := fmt.Sprintf("label: dos\nstart=%d, size=%d, type=c, bootable\nstart=%d, size=%d, type=83\n", bootAt/512, bootSize/512, rootAt/512, rootSize/512)
	if err := os.WriteFile(dir+"/table", []byte(table), 0o600); err != nil {
		return err
	}
	if _, err := output(dir, "sh", "-c", `sfdisk -q "$0" <table`, i.path); err != nil {
		return err
	}
	code, err := os.ReadFile("/usr/lib/SYSLINUX/mbr.bin")
	if err != nil || len(code) > bootCodeSize {
		return errors.Join(err, fmt.Errorf("the boot code has %d bytes", len(code)))
	}
	_, err = f.WriteAt(code, 0)
	return errors.Join(err, f.Sync())
}

// bootPartition makes DIR/boot.
func (i image) bootPartition(dir string) error {
	s := newTree()
	s.addUsr()
	if err := errors.Join(s.addGuest(), s.addModules(prepared.kernel, i.modules)); err != nil {
		return err
	}
	initrd, err := os.Create(dir + "/initrd")
	if err != nil {
		return err
	}
	if err := errors.Join(s.archive(initrd), initrd.Close(), os.WriteFile(dir+"/syslinux.cfg", fmt.Appendf(nil, bootConfig, quiet, i.append), 0o600),
		os.WriteFile(dir+"/boot", nil, 0o600), os.Truncate(dir+"/boot", bootSize)); err != nil {
		return err
	}
	for _, command := range [][]string{
		{"mkfs.vfat", "-h", fmt.Sprint(bootAt / 512), "boot"}, // the boot sector has to know where it is
		{"mcopy", "-i", "boot", prepared.kernel.image, "::vmlinuz"},
		{"mcopy", "-i", "boot", "initrd", "syslinux.cfg", "::"},
		{"syslinux", "--install", "boot"},
	} {
		if _, err := output(dir, command[0], command[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// rootPartition makes DIR/root.
func (i image) rootPartition(dir string) error {
	s := newTree()
	s.addSystem()
	s.file("/etc/modules", 0o644, nil) // they are loaded by then
	if err := errors.Join(s.addGuest(), s.addProgram("dash"), s.addBusybox()); err != nil {
		return err
	}
	s.link("/bin/sh", "dash")
	for _, f := range i.files {
		s.file(f.Path, f.Mode, f.Content)
	}
	top := filepath.Join(dir, "top")
	if err := errors.Join(os.Mkdir(top, 0o755), s.lay(top)); err != nil {
		return err
	}
	_, err := output(dir, "mkfs.ext4", "-q", "-L", "root", "-d", top, "root", fmt.Sprint(rootSize/1024))
	return err
}

// place copies a partition to where it belongs.
func place(disk *os.File, partition string, at int64) error {
	from, err := os.Open(partition)
	if err != nil {
		return err
	}
	defer from.Close()
	_, err = io.Copy(io.NewOffsetWriter(disk, at), from)
	return err
}
