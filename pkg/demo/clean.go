package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// waitTime is how long the kernel may take to let go of something.
const waitTime = 10 * time.Second

// clean takes everything away and returns what could not be. It asks the system what is there instead of remembering
// what was made: a mount that was interrupted may have happened or not.
func (t *tour) clean(ctx context.Context) (left []string) {
	// A guest that is asked to shut down may take its time; its disk goes anyway.
	if t.server != nil {
		_ = t.server.Signal(ctx, syscall.SIGKILL)
		t.server = nil
	}
	// Then what is below, while the daemon still answers; file systems before the files that they lie in.
	for _, at := range mountsUnder(t.dir) {
		if until(ctx, "the mount to be free", func() bool { return t.unmount(ctx, at) }) != nil {
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	}
	t.freeLoops(ctx)
	for _, p := range slices.Backward(t.others) {
		p.Stop(ctx)
	}
	t.daemon.Stop(ctx)
	t.daemon, t.others = nil, nil
	if left = waitGone(ctx, t.dir); len(left) > 0 {
		return append(left, t.dir) // not removed: what is mounted in it would be emptied
	}
	if err := os.RemoveAll(t.dir); err != nil {
		left = append(left, err.Error())
	}
	return left
}

// unmount tells whether a mount is gone. A file system in use by a loop device is free only once that is.
func (t *tour) unmount(ctx context.Context, at string) bool {
	t.freeLoops(ctx)
	err := syscall.Unmount(at, 0)
	return err == nil || errors.Is(err, syscall.EINVAL) // EINVAL: not a mount any more
}

// freeLoops takes the files away from loop devices; from one that is in use the kernel does so at its last close.
func (t *tour) freeLoops(ctx context.Context) {
	for _, device := range loopsUnder(t.dir) {
		_ = t.quiet(exec.CommandContext(ctx, "losetup", "-d", device)).Run() // waitGone sees whether it worked
	}
}

// waitGone waits a moment for mounts and loop devices to be gone, and tells which are not.
func waitGone(ctx context.Context, dir string) (left []string) {
	err := until(ctx, "the end", func() bool {
		left = nil
		for _, at := range mountsUnder(dir) {
			left = append(left, "the mount "+at)
		}
		for _, device := range loopsUnder(dir) {
			left = append(left, "the loop device "+device)
		}
		return len(left) == 0
	})
	if err == nil {
		return nil
	}
	return left
}

// until waits for something that the kernel or another process does in its own time.
func until(ctx context.Context, what string, so func() bool) error {
	ctx, cancel := context.WithTimeout(ctx, waitTime)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %s: %w", what, ctx.Err())
		}
	}
	return nil
}

// mountsUnder lists the mounts below dir, the last one first (proc_pid_mounts(5)).
func mountsUnder(dir string) (at []string) {
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if len(fields) > 1 && strings.HasPrefix(unescape(fields[1]), dir+"/") {
			at = append(at, unescape(fields[1]))
		}
	}
	slices.Reverse(at)
	return at
}

// unescape undoes the octal escapes of the mount table.
func unescape(path string) string {
	return strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(path)
}

// loopsUnder lists the loop devices on files below dir.
func loopsUnder(dir string) (devices []string) {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file") // the pattern is well-formed
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err == nil && strings.HasPrefix(string(backing), dir+"/") {
			devices = append(devices, fmt.Sprintf("/dev/%s", filepath.Base(filepath.Dir(filepath.Dir(file)))))
		}
	}
	return devices
}
