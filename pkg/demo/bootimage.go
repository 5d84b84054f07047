package demo

import (
	"bufio"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const (
	sector       = 512
	partitionAt  = 1 << 20 // where disks have their first partition
	bootCodeSize = 440     // of the first sector; the table of partitions comes after it
	tableAt      = 446
)

// bootConfig is what syslinux reads: no questions, the kernel says little, and gives the word to the first program.
const bootConfig = "SERIAL 0 115200\nDEFAULT linux\nLABEL linux\n KERNEL vmlinuz\n INITRD initrd\n APPEND console=ttyS0 quiet panic=-1 random.trust_cpu=on %s=%s\n"

// bootImage makes DIR/image: a disk that boots by itself, as a server's does. Its one partition has a boot loader, a kernel, and this program as all
// of a system.
func (b bootable) bootImage(ctx context.Context, dir, self, word string) (image string, err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	kernel, err := os.ReadFile(b.kernel)
	if err != nil {
		return "", err
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "vmlinuz"), kernel, 0o600), writeInitrd(filepath.Join(dir, "initrd"), self),
		os.WriteFile(filepath.Join(dir, "syslinux.cfg"), fmt.Appendf(nil, bootConfig, guestWord, word), 0o600)); err != nil {
		return "", err
	}
	partition := filepath.Join(dir, "partition")
	size, err := b.partition(ctx, dir, partition)
	if err != nil {
		return "", err
	}
	image = filepath.Join(dir, "image")
	return image, b.disk(image, partition, size)
}

// partition makes a FAT file system of the files in a directory.
func (b bootable) partition(ctx context.Context, dir, path string) (size int64, err error) {
	files := []string{"vmlinuz", "initrd", "syslinux.cfg"}
	for _, name := range files {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			return 0, err
		}
		size += info.Size()
	}
	size = (size + size/16 + 4<<20) &^ (1<<20 - 1) // the file system's own needs room, too
	if err := errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, size)); err != nil {
		return 0, err
	}
	for _, words := range [][]string{
		{b.programs["mkfs.vfat"], "-h", fmt.Sprint(partitionAt / sector), path}, // the boot sector has to know where it is
		append([]string{b.programs["mcopy"], "-i", path}, append(files, "::")...),
		{b.programs["syslinux"], "--install", path},
	} {
		cmd := exec.CommandContext(ctx, words[0], words[1:]...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "LC_ALL=C", "MTOOLS_SKIP_CHECK=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			return 0, fmt.Errorf("%s: %w: %s", words[0], err, strings.TrimSpace(string(out)))
		}
	}
	return size, nil
}

// disk makes a disk of a partition: before it stand the boot code, and the table with one entry.
func (b bootable) disk(path, partition string, size int64) error {
	code, err := os.ReadFile(b.bootCode)
	if err != nil || len(code) > bootCodeSize {
		return errors.Join(err, fmt.Errorf("the boot code %s has %d bytes", b.bootCode, len(code)))
	}
	from, err := os.Open(partition)
	if err != nil {
		return err
	}
	defer from.Close()
	to, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer to.Close()
	first := make([]byte, sector)
	copy(first, code)
	entry := first[tableAt:]
	copy(entry, "\x80\xfe\xff\xff\x0e\xfe\xff\xff") // it boots, is FAT16, and lies beyond cylinders and heads
	binary.LittleEndian.PutUint32(entry[8:], partitionAt/sector)
	binary.LittleEndian.PutUint32(entry[12:], uint32(size/sector))
	copy(first[sector-2:], "\x55\xaa")
	if _, err := to.Write(first); err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(to, partitionAt), from)
	return err
}

// writeInitrd writes what the kernel unpacks into memory: this program, as the first to run.
func writeInitrd(path, self string) error {
	program, err := os.ReadFile(self)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	packed, err := gzip.NewWriterLevel(file, gzip.BestSpeed)
	if err != nil {
		return err
	}
	archive := bufio.NewWriter(packed)
	for i, f := range []struct {
		name    string
		mode    int
		content []byte
	}{{"init", 0o100755, program}, {"TRAILER!!!", 0, nil}} {
		archiveFile(archive, i+1, f.name, f.mode, f.content)
	}
	return errors.Join(archive.Flush(), packed.Close(), file.Close())
}

// archiveFile writes a file of a cpio archive of the kind "newc" (Documentation/driver-api/early-userspace/buffer-format.rst of the kernel). An error stays in
// w, and its Flush tells it.
func archiveFile(w *bufio.Writer, number int, name string, mode int, content []byte) {
	header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00", number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name)+1, 0, name)
	for _, part := range [][]byte{[]byte(header), content} {
		w.Write(part)
		w.WriteString(strings.Repeat("\x00", -len(part)&3))
	}
}
