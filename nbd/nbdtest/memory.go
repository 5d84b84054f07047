// Package nbdtest is the conformance suite of nbd.Device, and the devices that tests serve: one in memory and one
// that fails, waits or watches on the way to another.
package nbdtest

import (
	"io"
	"sync"
	"syscall"
)

// Memory is a device in memory with every ability. It is for tests: a lock round it all keeps overlapping requests
// whole.
type Memory struct {
	mu    sync.RWMutex
	bytes []byte
	syncs int
}

// NewMemory makes a device of size zero bytes.
func NewMemory(size int) *Memory { return &Memory{bytes: make([]byte, size)} }

// Size is the size in bytes.
func (m *Memory) Size() (int64, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return int64(len(m.bytes)), nil
}

// Grow makes the device larger, as extending a disk does.
func (m *Memory) Grow(size int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.bytes = append(m.bytes, make([]byte, size-len(m.bytes))...)
}

// inside refuses ranges that are not in the device.
func (m *Memory) inside(off, n int64) error {
	if off < 0 || n < 0 || off > int64(len(m.bytes)) || n > int64(len(m.bytes))-off {
		return syscall.EINVAL
	}
	return nil
}

// ReadAt reads, and ends with io.EOF at the end of the device.
func (m *Memory) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off < 0 || off > int64(len(m.bytes)) {
		return 0, syscall.EINVAL
	}
	n := copy(p, m.bytes[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// WriteAt writes; what does not fit is not begun.
func (m *Memory) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.inside(off, int64(len(p))) != nil {
		return 0, syscall.ENOSPC
	}
	return copy(m.bytes[off:], p), nil
}

// WriteAtFUA writes: memory is as durable as this device gets.
func (m *Memory) WriteAtFUA(p []byte, off int64) (int, error) { return m.WriteAt(p, off) }

// TrimAt makes a range zero.
func (m *Memory) TrimAt(off, n int64) error { return m.ZeroAt(off, n, false) }

// ZeroAt makes a range zero.
func (m *Memory) ZeroAt(off, n int64, noHole bool) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.inside(off, n); err != nil {
		return err
	}
	clear(m.bytes[off : off+n])
	return nil
}

// Sync counts.
func (m *Memory) Sync() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.syncs++
	return nil
}

// Syncs is how often Sync was called.
func (m *Memory) Syncs() int {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.syncs
}
