package blockdev

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"nbdcrypt/pkg/refusal"
)

// host is where the kernel's files are; tests put a directory there.
type host struct{ root string }

var here = host{"/"}

// maxIndex is the highest device number that the driver can have with 16 minors for partitions.
const maxIndex = 1<<16 - 1

// indexOf is N of /dev/nbdN.
func indexOf(path string) (int, error) {
	digits, ok := strings.CutPrefix(path, "/dev/nbd")
	n, err := strconv.Atoi(digits)
	if !ok || err != nil || n < 0 || n > maxIndex || strconv.Itoa(n) != digits {
		return 0, refusal.New(refusal.Usage, "name one as /dev/nbd0, or say auto", "%.100q is no network block device", path)
	}
	return n, nil
}

func pathOf(index int) string { return fmt.Sprintf("/dev/nbd%d", index) }

func (h host) block(path string, file ...string) string {
	return filepath.Join(append([]string{h.root, "sys/block", filepath.Base(path)}, file...)...)
}

// line reads a file of one line.
func (h host) line(path string) (string, error) {
	text, err := os.ReadFile(path)
	return strings.TrimSpace(string(text)), err
}

// connected tells whether the driver holds a connection for a device: the file is there exactly as long.
func (h host) connected(path string) (bool, error) {
	_, err := os.Stat(h.block(path, "pid"))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// identifier is what whoever connected a device named it, empty where that was nothing.
func (h host) identifier(path string) (string, error) {
	name, err := h.line(h.block(path, "backend"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return name, err
}

// Announce has udev look at a device once more: the kernel tells it of a connection before Backend is there to be seen.
func Announce(path string) { here.announce(path) }

func (h host) announce(path string) {
	_ = os.WriteFile(h.block(path, "uevent"), []byte("change"), 0o600) // where there is no udev, or /sys is not ours to write, nobody waits for it
}

// free is the first device that nobody has connected; the driver makes one where there is none.
func (h host) free() (string, error) {
	for n := range maxIndex + 1 {
		path := pathOf(n)
		taken, err := h.connected(path)
		if err != nil {
			return "", err
		}
		if !taken {
			return path, nil
		}
	}
	return "", refusal.New(refusal.Busy, "disconnect one", "all network block devices are connected")
}

// Backend is what whoever connected a device named it, and whether it is connected at all.
func Backend(path string) (identifier string, connected bool, err error) { return here.backend(path) }

func (h host) backend(path string) (string, bool, error) {
	if _, err := indexOf(path); err != nil {
		return "", false, err
	}
	is, err := h.connected(path)
	if err != nil || !is {
		return "", false, err
	}
	name, err := h.identifier(path)
	return name, true, err
}
