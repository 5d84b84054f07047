package demo

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"nbdcrypt/pkg/control"
)

// maxSocketPath is what sun_path of unix(7) holds, without its closing NUL.
const maxSocketPath = 107

// makeDir makes the directory that everything lies in: under $TMPDIR, or in /tmp where sockets under that would have too
// long a path.
func makeDir() (string, error) {
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		dir, err := os.MkdirTemp(parent, "nbdcrypt-")
		if err != nil {
			return "", fmt.Errorf("demo: making a temporary directory: %w", err)
		}
		// Mount tables tell real paths: with a link in it ours would not be found there.
		if real, err := filepath.EvalSymlinks(dir); err == nil {
			dir = real
		}
		if len(filepath.Join(dir, "run", control.SocketControl)) <= maxSocketPath {
			return dir, nil
		}
		if err := os.Remove(dir); err != nil {
			return "", fmt.Errorf("demo: %w", err)
		}
	}
	return "", fmt.Errorf("demo: no temporary directory with a path short enough for a socket (%d bytes)", maxSocketPath)
}

// holdSignals keeps signals from ending the program before it has cleaned up: a hang-up ends ctx as an interrupt does,
// a reader of stdout that goes away becomes an error of the write, and a second Ctrl-C is not needed, the cleaning up
// being bounded.
func holdSignals(ctx context.Context) (context.Context, func()) {
	held := make(chan os.Signal, 1)
	signal.Notify(held, os.Interrupt, syscall.SIGTERM, syscall.SIGPIPE)
	if signal.Ignored(syscall.SIGHUP) {
		return ctx, func() { signal.Stop(held) }
	}
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGHUP)
	return ctx, func() { stop(); signal.Stop(held) }
}

func (t *tour) path(names ...string) string {
	return filepath.Join(append([]string{t.dir}, names...)...)
}
