package blockdev

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/moby/sys/mountinfo"
	"golang.org/x/sys/unix"
)

// Users tells in words who uses a device or a partition of it, so that disconnecting it would take it away from them. It is empty where
// the kernel gives the device to us alone, which is what decides.
func Users(path string) ([]string, error) { return here.users(path) }

func (h host) users(path string) ([]string, error) {
	parts, err := h.parts(path)
	if err != nil {
		return nil, err
	}
	var list []string
	for _, find := range []func([]part) ([]string, error){h.mounts, h.swaps, h.holders, h.loops} {
		found, err := find(parts)
		if err != nil {
			return nil, fmt.Errorf("who uses %s: %w", path, err)
		}
		list = append(list, found...)
	}
	if len(list) == 0 {
		list, err = h.openers(parts)
	}
	if len(list) > 0 || err != nil {
		return list, err
	}
	return h.alone(path)
}

// part is a device or one of its partitions.
type part struct {
	name   string // nbd0p1
	number string // 43:1
}

func (p part) path() string { return "/dev/" + p.name }

// parts are a device and its partitions.
func (h host) parts(path string) ([]part, error) {
	files, err := filepath.Glob(h.block(path, filepath.Base(path)+"p*", "dev"))
	if err != nil {
		return nil, err
	}
	slices.Sort(files)
	var parts []part
	for _, file := range append([]string{h.block(path, "dev")}, files...) {
		number, err := h.line(file)
		if err != nil {
			return nil, err
		}
		parts = append(parts, part{filepath.Base(filepath.Dir(file)), number})
	}
	return parts, nil
}

// mounts are where file systems on them are mounted, in the mount namespace of this process.
func (h host) mounts(parts []part) (list []string, err error) {
	table, err := os.Open(filepath.Join(h.root, "proc/self/mountinfo"))
	if err != nil {
		return nil, err
	}
	defer table.Close()
	_, err = mountinfo.GetMountsFromReader(table, func(m *mountinfo.Info) (skip, stop bool) {
		number := fmt.Sprintf("%d:%d", m.Major, m.Minor)
		// Some file systems have a number of their own there, and only say what they are on.
		if i := slices.IndexFunc(parts, func(p part) bool { return p.number == number || p.path() == m.Source }); i >= 0 {
			list = append(list, parts[i].path()+" is mounted at "+m.Mountpoint)
		}
		return true, false
	})
	return list, err
}

// swaps are those that are swap space.
func (h host) swaps(parts []part) (list []string, err error) {
	text, err := os.ReadFile(filepath.Join(h.root, "proc/swaps"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		for _, p := range parts {
			if len(fields) > 0 && fields[0] == p.path() {
				list = append(list, p.path()+" is swap space")
			}
		}
	}
	return list, err
}

// holders are devices made of them: by device-mapper, md, bcache.
func (h host) holders(parts []part) (list []string, err error) {
	for i, p := range parts {
		dir := h.block(parts[0].path(), "holders")
		if i > 0 {
			dir = h.block(parts[0].path(), p.name, "holders")
		}
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		for _, e := range entries {
			words := "/dev/" + e.Name()
			if name, err := h.line(h.block(e.Name(), "dm/name")); err == nil {
				words += " (" + name + ")"
			}
			list = append(list, fmt.Sprintf("%s is part of %s", p.path(), words))
		}
	}
	return list, nil
}

// loops are loop devices over them.
func (h host) loops(parts []part) (list []string, err error) {
	files, err := filepath.Glob(h.block("loop*", "loop/backing_file"))
	if err != nil {
		return nil, err
	}
	for _, file := range files {
		backing, err := h.line(file)
		if err != nil {
			continue // it was let go meanwhile
		}
		for _, p := range parts {
			if backing == p.path() {
				list = append(list, fmt.Sprintf("%s is below /dev/%s", p.path(), filepath.Base(filepath.Dir(filepath.Dir(file)))))
			}
		}
	}
	return list, nil
}

// alone asks the kernel whether the device is nobody's: whoever mounts it, also in a namespace that we don't see, has it exclusively.
func (h host) alone(path string) ([]string, error) {
	fd, err := unix.Open(filepath.Join(h.root, path), unix.O_RDONLY|unix.O_EXCL|unix.O_CLOEXEC, 0)
	if errors.Is(err, syscall.EBUSY) {
		return []string{path + " is held exclusively by somebody that this process can't see, as by a mount in another namespace"}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("who uses %s: %w", path, err)
	}
	return nil, unix.Close(fd)
}
