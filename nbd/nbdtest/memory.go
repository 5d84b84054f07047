// Package nbdtest is the conformance suite of nbd.Device, and the devices that tests serve: one in memory and one
// that fails, waits or watches on the way to another.
package nbdtest

import (
	"io"
	"sync"
	"syscall"
)

// Memory is a device in memory with every ability. It is for tests: a lock round it all keeps overlapping requests
// whole. None of its calls allocates, so that a test can count what a server does.
type Memory struct {
	mu    sync.RWMutex
	bytes []byte
	kinds []kind // of its blocks
	syncs int
}

// memoryBlock is the unit in which Memory knows what is a hole.
const memoryBlock = 4096

// kind is what a block of a Memory is: a hole from the start or since it was given up, zeros that keep their space, or data.
type kind byte

const (
	hole kind = iota
	zeros
	data
)

// NewMemory makes a device of size zero bytes, all of it a hole.
func NewMemory(size int) *Memory {
	m := &Memory{}
	m.Grow(size)
	return m
}

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
	m.kinds = append(m.kinds, make([]kind, (size+memoryBlock-1)/memoryBlock-len(m.kinds))...)
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
	for b := off / memoryBlock; b*memoryBlock < off+int64(len(p)); b++ {
		m.kinds[b] = data
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
	end := off + n
	if end == int64(len(m.bytes)) {
		end = (end + memoryBlock - 1) / memoryBlock * memoryBlock
	}
	for b := (off + memoryBlock - 1) / memoryBlock; (b+1)*memoryBlock <= end; b++ {
		m.kinds[b] = hole
		if noHole {
			m.kinds[b] = zeros
		}
	}
	return nil
}

// ZeroAtFast zeros whole blocks; the parts before and after them would have to be written, unless they are zeros already.
func (m *Memory) ZeroAtFast(off, n int64, noHole bool) error {
	m.mu.RLock()
	err := m.inside(off, n)
	if err == nil && n > 0 && (m.partKept(off, noHole) || m.partKept(off+n, noHole)) {
		err = syscall.ENOTSUP
	}
	m.mu.RUnlock()
	if err != nil {
		return err
	}
	return m.ZeroAt(off, n, noHole)
}

// partKept tells whether a range that begins or ends at off has a part of a block there that is not as it should be yet.
func (m *Memory) partKept(off int64, noHole bool) bool {
	if off%memoryBlock == 0 || off == int64(len(m.bytes)) {
		return false
	}
	is := m.kinds[off/memoryBlock]
	return is == data || noHole && is == hole
}

// ReadAtNowait reads: nothing in memory waits.
func (m *Memory) ReadAtNowait(p []byte, off int64) (int, error) { return m.ReadAt(p, off) }

// Extent is the run of blocks of one kind.
func (m *Memory) Extent(off, n int64) (length int64, isHole, isZero bool, err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if err := m.inside(off, n); err != nil || n == 0 {
		return 0, false, false, err
	}
	first := off / memoryBlock
	b := first + 1
	for b*memoryBlock < off+n && m.kinds[b] == m.kinds[first] {
		b++
	}
	return min(n, b*memoryBlock-off), m.kinds[first] == hole, m.kinds[first] != data, nil
}

// CacheAt has nothing to do.
func (m *Memory) CacheAt(off, n int64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.inside(off, n)
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
