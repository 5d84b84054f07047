package faultfs

import (
	"context"
	"path"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// node is a file or folder that asks before it passes an operation on.
type node struct {
	*fs.LoopbackNode
	faults *faults
	cached bool
}

// WrapChild makes a node of whatever is found below.
func (n *node) WrapChild(_ context.Context, child fs.InodeEmbedder) fs.InodeEmbedder {
	return &node{child.(*fs.LoopbackNode), n.faults, n.cached}
}

// name is the path of what has that name in this folder, or of n itself for "".
func (n *node) name(in string) string { return path.Join(n.Path(n.Root()), in) }

func (n *node) meet(op Op, in string) Fault { return n.faults.meet(op, n.name(in)) }

// how are the flags of an open file.
func (n *node) how() uint32 {
	if n.cached {
		return 0
	}
	return fuse.FOPEN_DIRECT_IO
}

func (n *node) Open(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if f := n.meet(Open, ""); f.Errno != 0 {
		return nil, 0, f.Errno
	}
	h, _, errno := n.LoopbackNode.Open(ctx, flags)
	return h, n.how(), errno
}

func (n *node) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if f := n.meet(Create, name); f.Errno != 0 {
		return nil, nil, 0, f.Errno
	}
	child, h, _, errno := n.LoopbackNode.Create(ctx, name, flags, mode, out)
	return child, h, n.how(), errno
}

func (n *node) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if f := n.meet(Create, name); f.Errno != 0 {
		return nil, f.Errno
	}
	return n.LoopbackNode.Mkdir(ctx, name, mode, out)
}

func (n *node) Unlink(ctx context.Context, name string) syscall.Errno {
	if f := n.meet(Remove, name); f.Errno != 0 {
		return f.Errno
	}
	return n.LoopbackNode.Unlink(ctx, name)
}

func (n *node) Rmdir(ctx context.Context, name string) syscall.Errno {
	if f := n.meet(Remove, name); f.Errno != 0 {
		return f.Errno
	}
	return n.LoopbackNode.Rmdir(ctx, name)
}

func (n *node) Rename(ctx context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if f := n.meet(Rename, name); f.Errno != 0 {
		return f.Errno
	}
	return n.LoopbackNode.Rename(ctx, name, to, newName, flags)
}

func (n *node) Setattr(ctx context.Context, h fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if _, resized := in.GetSize(); resized {
		if f := n.meet(Truncate, ""); f.Errno != 0 {
			return f.Errno
		}
	}
	return n.LoopbackNode.Setattr(ctx, h, in, out)
}

// OpendirHandle opens a folder whose syncs can fail.
func (n *node) OpendirHandle(ctx context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	h, how, errno := n.LoopbackNode.OpendirHandle(ctx, flags)
	if errno != 0 {
		return nil, 0, errno
	}
	return &folder{h.(openFolder), n}, how, 0
}

// openFolder is what an open folder of the library can do.
type openFolder interface {
	fs.FileReaddirenter
	fs.FileReleasedirer
	fs.FileSeekdirer
	fs.FileFsyncdirer
}

type folder struct {
	openFolder
	node *node
}

func (d *folder) Fsyncdir(ctx context.Context, flags uint32) syscall.Errno {
	if f := d.node.meet(Sync, ""); f.Errno != 0 {
		return f.Errno
	}
	return d.openFolder.Fsyncdir(ctx, flags)
}
