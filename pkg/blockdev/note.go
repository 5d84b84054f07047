package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
)

// Note leaves a line beside the device for whoever adopts it, in place of the one before. It goes with the machine's memory, as the kernel's
// connections do.
func (d *Device) Note(line string) error {
	// One write: who is killed leaves the one or the other. Of what was longer the rest is left behind the end of the line.
	_, err := d.lock.WriteAt([]byte(d.config.Identifier+" "+line+"\n"), 0)
	return err
}

// Noted is the line that was left beside a device as it is connected now, empty where none was.
func Noted(path string) (string, error) { return here.noted(path) }

func (h host) noted(path string) (string, error) {
	identifier, connected, err := h.backend(path)
	if err != nil || !connected {
		return "", err
	}
	text, err := os.ReadFile(filepath.Join(h.root, lockDir, filepath.Base(path)))
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	first, _, whole := strings.Cut(string(text), "\n")
	line, same := strings.CutPrefix(first, identifier+" ")
	if err != nil || !whole || !same {
		return "", err
	}
	return line, nil
}
