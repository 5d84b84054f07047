// Package vm runs a server: QEMU, on disks that the daemon attaches for as long as this process, the runner, has its lease. It holds no key and needs no
// privileges. When the daemon goes, QEMU waits for its disks while the runner asks the next daemon for the same ones; where that may not be,
// the runner ends QEMU and says why.
package vm

import (
	"context"
	"errors"
	"io"
	"time"

	"nbdcrypt/pkg/control"
)

// Client asks the daemon, in the server's project: a control.Client.
type Client interface {
	ServerRun(ctx context.Context, server string, how control.ServerRun) (*control.Line, error)
}

// Options say what is run.
type Options struct {
	Client Client
	Server string // a name or an id
	// RunDir is the daemon's run directory, RuntimeDir the user's ($XDG_RUNTIME_DIR): the server's own directory lies in the first that can be
	// written, else in /tmp.
	RunDir, RuntimeDir string
	// Reconnect is how long the daemon may be away.
	Reconnect time.Duration
	// Patience is how long a guest may take to shut down when a signal asks for it; 45 s where it is zero.
	Patience time.Duration
	// Started is called once, when QEMU runs; until then whatever goes wrong is what Run returns.
	Started func(control.Server)
	// Say tells the user what happens to the server. It must not wait for whoever listens.
	Say func(format string, args ...any)
}

// Run runs a server until it ends. That a guest shut down, or was made to, is no error. The end of ctx, SIGTERM, SIGINT and SIGHUP ask the guest to shut
// down; a signal after that switches it off.
func Run(ctx context.Context, o Options) error { return errors.ErrUnsupported }

// Find finds the program that runs servers, or refuses and names what to install.
func Find() (string, error) { return "", errors.ErrUnsupported }

// ErrLeave of a Console's input leaves the console.
var ErrLeave = errors.New("vm: the user leaves the console")

// Console is the console of a server that runs, at control.Server.Console: it writes to out what was kept of it and, unless log, what comes, and sends the guest
// what it reads from in, until the server ends, in returns ErrLeave, or ctx ends, none of which is an error. At the end of in it stays; a read from in may outlive the call.
func Console(ctx context.Context, path string, in io.Reader, out io.Writer, log bool) error {
	return errors.ErrUnsupported
}
