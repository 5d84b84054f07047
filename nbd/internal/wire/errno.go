package wire

import (
	"errors"
	"syscall"
)

// Code is the number on the wire for what a device, or a check, answered. Only the codes that the protocol defines
// leave (spec item 19); EOVERFLOW and ENOTSUP are defined for requests that are not served yet, so from a device they
// are EIO like anything else without a code.
func Code(err error) uint32 {
	if err == nil {
		return 0
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return uint32(syscall.EIO)
	}
	switch errno {
	case syscall.EPERM, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC, syscall.ESHUTDOWN:
		return uint32(errno)
	case syscall.EDQUOT, syscall.EFBIG:
		return uint32(syscall.ENOSPC)
	case syscall.EACCES, syscall.EROFS:
		return uint32(syscall.EPERM)
	}
	return uint32(syscall.EIO)
}

// Errno is what a code on the wire means here. The numbers are Linux's; one that is not defined is EIO.
func Errno(code uint32) syscall.Errno {
	switch errno := syscall.Errno(code); errno {
	case syscall.EPERM, syscall.EIO, syscall.ENOMEM, syscall.EINVAL, syscall.ENOSPC,
		syscall.EOVERFLOW, syscall.ENOTSUP, syscall.ESHUTDOWN:
		return errno
	}
	return syscall.EIO
}
