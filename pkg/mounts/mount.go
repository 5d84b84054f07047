package mounts

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"nbdcrypt/pkg/refusal"
)

// Place is a directory by the name that the kernel's table has for it where something is mounted at it.
func Place(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return "", refusal.New(refusal.NotFound, "make it first: `mkdir -p "+dir+"`", "nothing can be mounted at %s: %w", dir, err)
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return "", refusal.New(refusal.Usage, "name a directory", "nothing can be mounted at %s: it is no directory", path)
	}
	return path, nil
}

// Point is the place where something is to be mounted: a directory that has nothing mounted on it yet.
func Point(dir string) (string, error) {
	path, err := Place(dir)
	if err != nil {
		return "", err
	}
	m, err := At(path)
	if err != nil {
		return "", err
	}
	if m != nil {
		return "", refusal.New(refusal.Busy, "unmount that first, or name another directory", "%s is mounted at %s already", m.Source, path)
	}
	return path, nil
}

// Mount mounts the file system that is on a device, of whatever type mount(8) finds there. Whoever wrote what is on it is not root here.
func Mount(ctx context.Context, device, dir string, readOnly bool) error {
	options := "nosuid,nodev"
	if readOnly {
		options += ",ro"
	}
	if err := run(ctx, "mount", "-o", options, device, dir); err != nil {
		return refusal.New(refusal.Failed, "where there is no file system yet, attach it without --mount, make one with `mkfs.ext4 "+device+"`, and mount that",
			"%s can't be mounted at %s: %w", device, dir, err)
	}
	return nil
}

// Unmount takes away what is mounted at a directory. What is in use stays, and is refused.
func Unmount(ctx context.Context, dir string) error { return unmount(ctx, dir, "umount", dir) }

func unmount(ctx context.Context, dir, program string, args ...string) error {
	if err := run(ctx, program, args...); err != nil {
		return refusal.New(refusal.Busy, "end what uses it (`fuser -vm "+dir+"` names it), then try again", "%s can't be unmounted: %w", dir, err)
	}
	return nil
}

// run runs a program; what it said is the error. It is not cut off with ctx, since what it does to the kernel can't be.
func run(ctx context.Context, program string, args ...string) error {
	if err := context.Cause(ctx); err != nil {
		return err
	}
	out, err := exec.Command(program, args...).CombinedOutput()
	if missing(err) {
		return fmt.Errorf("the program %s is not there", program)
	}
	if err != nil {
		return errors.New(cmp.Or(strings.Join(strings.Fields(string(bytes.ToValidUTF8(out, nil))), " "), err.Error()))
	}
	return nil
}

func missing(err error) bool {
	return errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist)
}
