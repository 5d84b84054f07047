// Package faultfs is a file system that passes everything through to a folder, until it is told to fail: by operation and file it answers
// errors, does half of what it was asked, loses what it said it had stored, or waits. What lies on it meets storage that
// breaks, through the real kernel and the real system calls.
//
// It is for tests, mounts by FUSE, and so needs root and Linux.
package faultfs

import (
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// FS is one mounted file system.
type FS struct {
	faults
	server *fuse.Server
	dir    string
}

// Options say how files are read and written.
type Options struct {
	// Cached has the kernel keep what is read, and files can be mapped into memory. Otherwise every read and write is passed on as it
	// was asked, so that faults meet it.
	Cached bool
}

// Mount shows the folder backing at dir.
func Mount(backing, dir string, o Options) (*FS, error) {
	root, err := fs.NewLoopbackRoot(backing)
	if err != nil {
		return nil, fmt.Errorf("faultfs: %w", err)
	}
	f := &FS{dir: dir}
	n := &node{LoopbackNode: root.(*fs.LoopbackNode), faults: &f.faults, cached: o.Cached}
	n.RootData.RootNode = n
	f.server, err = fs.Mount(dir, n, &fs.Options{MountOptions: fuse.MountOptions{
		FsName: "faultfs", Name: "faultfs", AllowOther: true, DirectMountStrict: true,
		DisabledCapabilities: fuse.CAP_PASSTHROUGH, // by which the kernel would read and write without us
	}})
	if err != nil {
		return nil, fmt.Errorf("faultfs: mount %s: %w", dir, err)
	}
	return f, nil
}

// Close ends all faults and unmounts. Files that are open are no hindrance: who has them open gets errors from then on, instead of waiting
// for ever for a process that may be the one that ends.
func (f *FS) Close() error {
	f.Heal()
	if err := syscall.Unmount(f.dir, syscall.MNT_FORCE|syscall.MNT_DETACH); err != nil {
		return fmt.Errorf("faultfs: unmount %s: %w", f.dir, err)
	}
	return nil
}
