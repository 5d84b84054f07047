package mounts

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"nbdcrypt/pkg/refusal"
)

const (
	nbdfuse    = "nbdfuse"
	fusermount = "fusermount3"
	// fuseTime is how long nbdfuse may take to connect and mount.
	fuseTime = 30 * time.Second
)

// HaveFuse refuses where the programs for it are not installed.
func HaveFuse() error {
	for _, need := range []struct{ program, from string }{{nbdfuse, "libnbd-bin"}, {fusermount, "fuse3"}} {
		if _, err := exec.LookPath(need.program); err != nil {
			return refusal.New(refusal.Failed, "install it: the package "+need.from+" of Debian has it, elsewhere libnbd or fuse3", "the program %s is not there", need.program)
		}
	}
	return nil
}

// Fuse shows an export as the file dir/name: nbdfuse serves it, in a session of its own, until the directory is unmounted.
func Fuse(ctx context.Context, uri, dir, name string, readOnly bool) error {
	said, err := os.CreateTemp("", "nbdfuse")
	if err != nil {
		return err
	}
	defer said.Close()
	defer os.Remove(said.Name())
	file := filepath.Join(dir, name)
	// A pipe would end it with a signal: it outlives this process.
	cmd := exec.Command(nbdfuse, fuseArgs(file, uri, readOnly)...)
	cmd.Stdout, cmd.Stderr = said, said
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return refusal.New(refusal.Failed, "see that it is installed", "nbdfuse can't be started: %w", err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	if err := shown(ctx, file, ended); err != nil {
		_ = cmd.Process.Kill() // it may have ended
		words, _ := io.ReadAll(io.NewSectionReader(said, 0, 4096))
		return refusal.New(refusal.Failed, "see what nbdfuse says; it needs /dev/fuse, and a directory of your own",
			"%s can't be shown at %s: %s", uri, file, cmp.Or(strings.Join(strings.Fields(string(words)), " "), err.Error()))
	}
	return nil
}

func fuseArgs(file, uri string, readOnly bool) []string {
	if readOnly {
		return []string{"-r", file, uri}
	}
	return []string{file, uri}
}

// shown waits until the file is there.
func shown(ctx context.Context, file string, ended <-chan error) error {
	ctx, stop := context.WithTimeout(ctx, fuseTime)
	defer stop()
	for {
		if m, err := At(filepath.Dir(file)); err == nil && m != nil && m.IsFuse() {
			if info, err := os.Stat(file); err == nil && info.Size() > 0 {
				return nil
			}
		}
		select {
		case err := <-ended:
			return cmp.Or(err, errors.New("nbdfuse ended"))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// UnmountFuse takes away what Fuse did. Where lazy it vanishes at once, and ends when nobody uses it any more.
func UnmountFuse(ctx context.Context, dir string, lazy bool) error {
	if lazy {
		return unmount(ctx, dir, fusermount, "-u", "-z", dir)
	}
	return unmount(ctx, dir, fusermount, "-u", dir)
}
