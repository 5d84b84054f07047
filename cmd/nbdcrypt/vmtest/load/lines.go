package load

import (
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// lines writes whole lines, one at a time.
type lines struct {
	mu sync.Mutex
	to io.Writer
}

func (l *lines) say(line string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, err := io.WriteString(l.to, line)
	return err
}

// marks writes lines to a device, each as the first sector, past the page cache: it has been heard when the write returns.
type marks struct {
	f      *os.File
	name   string // goes before each line
	sector []byte // aligned, as such a write needs it
}

func openMarks(path, name string) (*marks, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|syscall.O_DIRECT, 0)
	if err != nil {
		return nil, fmt.Errorf("load: marks: %w", err)
	}
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, fmt.Errorf("load: marks: %w", err)
	}
	return &marks{f, name, page[:Sector]}, nil
}

func (m *marks) Write(line []byte) (int, error) {
	clear(m.sector)
	copy(m.sector, append([]byte(m.name+" "), line...))
	_, err := m.f.WriteAt(m.sector, 0)
	return len(line), err
}
