package process

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
)

// maxSocketPath is what sun_path of unix(7) holds, without its closing NUL.
const maxSocketPath = 107

// TempDir makes a directory for sockets whose longest path in it is socket: under $TMPDIR, or in /tmp where sockets under that would
// have too long a path.
func TempDir(socket string) (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(parent, "nbdcrypt-")
		if err != nil {
			return "", fmt.Errorf("making a temporary directory: %w", err)
		}
		// Mount tables tell real paths: with a link in it ours would not be found there.
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		if len(filepath.Join(dir, socket)) <= maxSocketPath {
			return dir, nil
		}
		if err := os.Remove(dir); err != nil {
			return "", err
		}
	}
	return "", fmt.Errorf("no temporary directory with a path short enough for a socket (%d bytes)", maxSocketPath)
}

// HoldSignals keeps signals from ending the program before it has cleaned up: a hang-up ends ctx as an interrupt does,
// a reader of stdout that goes away becomes an error of the write, and a second Ctrl-C is not needed, the cleaning up
// being bounded.
func HoldSignals(ctx context.Context) (context.Context, func()) {
	held := make(chan os.Signal, 1)
	signal.Notify(held, os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() { signal.Stop(held) }
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	return ctx, func() { stop(); signal.Stop(held) }
}
