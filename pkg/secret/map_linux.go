package secret

import (
	"errors"
	"fmt"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errLimit marks the failures that mean a limit, which another way of mapping would meet as well.
var errLimit = errors.New("limit")

// mapSecret takes pages out of the kernel's direct map, Linux 5.14 and later unless booted with secretmem.enable=0.
var mapSecret = mapper{MemfdSecret, func(size int) ([]byte, error) {
	fd, _, errno := unix.Syscall(unix.SYS_MEMFD_SECRET, unix.O_CLOEXEC, 0, 0)
	if errno != 0 {
		return nil, fmt.Errorf("memfd_secret: %w", errno)
	}
	defer unix.Close(int(fd)) // the mapping keeps the memory
	if err := unix.Ftruncate(int(fd), int64(size)); err != nil {
		return nil, fmt.Errorf("memfd_secret: setting the size: %w", err)
	}
	return guarded(size, int(fd), unix.MAP_SHARED, func([]byte) error { return nil }) // locked from birth; mlock fails on it
}}

// mapLocked is for kernels without memfd_secret, and for containers whose filter forbids it.
var mapLocked = mapper{LockedMemory, func(size int) ([]byte, error) {
	return guarded(size, -1, unix.MAP_PRIVATE|unix.MAP_ANON, unix.Mlock)
}}

// guarded maps size bytes between two pages that fault on any access, and keeps them out of swap, dumps and children.
func guarded(size, fd, flags int, lock func([]byte) error) ([]byte, error) {
	page := os.Getpagesize()
	whole := uintptr(size + 2*page)
	base, err := unix.MmapPtr(-1, 0, nil, whole, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return nil, fmt.Errorf("reserving address space: %w", err)
	}
	p := unsafe.Add(base, page)
	mem := unsafe.Slice((*byte)(p), size)
	_, err = unix.MmapPtr(fd, 0, p, uintptr(size), unix.PROT_READ|unix.PROT_WRITE, flags|unix.MAP_FIXED)
	if err == nil {
		err = lock(mem)
	}
	if err != nil {
		err = limitOr(err)
	} else {
		err = private(mem)
	}
	if err != nil {
		unix.MunmapPtr(base, whole)
		return nil, err
	}
	return mem, nil
}

// private keeps mem out of core dumps, and out of children, which would share it or copy it on write.
func private(mem []byte) error {
	for _, advice := range []int{unix.MADV_DONTDUMP, unix.MADV_DONTFORK} {
		if err := unix.Madvise(mem, advice); err != nil {
			return fmt.Errorf("madvise %d: %w", advice, err)
		}
	}
	return nil
}

// limitOr tells the limit (mlock(2): ENOMEM, EPERM where it is 0; mmap(2): EAGAIN) from other failures.
func limitOr(err error) error {
	switch err {
	case unix.ENOMEM, unix.EPERM, unix.EAGAIN:
		return fmt.Errorf("%w: %w", errLimit, err)
	}
	return fmt.Errorf("mapping memory for keys: %w", err)
}
