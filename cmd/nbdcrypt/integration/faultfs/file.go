package faultfs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// half of a read is at least 1 byte, so that who goes on where it was cut short comes to an end.
func half(n int) int { return (n + 1) / 2 }

// halfOfBlocks is what a write that is cut short does: file systems take whole blocks, or all of what is less.
func halfOfBlocks(n int) int {
	const block = 4096
	return min(n, (half(n)+block-1)/block*block)
}

func (n *node) Read(ctx context.Context, h fs.FileHandle, p []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	f := n.meet(Read, "")
	if f.Errno != 0 {
		return nil, f.Errno
	}
	if f.Short {
		p = p[:half(len(p))]
	}
	return h.(*fs.LoopbackFile).Read(ctx, p, off)
}

func (n *node) Write(ctx context.Context, h fs.FileHandle, p []byte, off int64) (uint32, syscall.Errno) {
	f := n.meet(Write, "")
	switch {
	case f.Errno != 0:
		return 0, f.Errno
	case f.Lost:
		return uint32(len(p)), 0
	case f.Short:
		p = p[:halfOfBlocks(len(p))]
	}
	return h.(*fs.LoopbackFile).Write(ctx, p, off)
}

func (n *node) Fsync(ctx context.Context, h fs.FileHandle, flags uint32) syscall.Errno {
	if f := n.meet(Sync, ""); f.Errno != 0 {
		return f.Errno
	}
	return h.(*fs.LoopbackFile).Fsync(ctx, flags)
}

func (n *node) Allocate(ctx context.Context, h fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	if f := n.meet(Allocate, ""); f.Errno != 0 {
		return f.Errno
	}
	return h.(*fs.LoopbackFile).Allocate(ctx, off, size, mode)
}

// CopyFileRange is left to whoever asks: by reads and writes, which can fail.
func (n *node) CopyFileRange(context.Context, fs.FileHandle, uint64, *fs.Inode, fs.FileHandle, uint64, uint64, uint64) (uint32, syscall.Errno) {
	return 0, syscall.ENOTSUP
}
