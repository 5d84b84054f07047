// Package vm runs a server: QEMU, on disks that the daemon attaches for as long as this process, the runner, has its lease. It holds no key and needs no
// privileges. When the daemon goes, QEMU waits for its disks while the runner asks the next daemon for the same ones; where that may not be,
// the runner ends QEMU and says why.
//
// A runner is one goroutine (loop), which never waits for anybody: what does runs beside it and comes back as a function that the loop calls.
package vm

import (
	"context"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// Program is what runs servers.
const Program = "qemu-system-x86_64"

// DefaultPatience is how long a guest may take to shut down where nothing else is said.
const DefaultPatience = 45 * time.Second

// Client asks the daemon, in the server's project: a control.Client.
type Client interface {
	ServerRun(ctx context.Context, server string, how control.ServerRun) (*control.Line, error)
	ServerShow(ctx context.Context, server string) (control.Server, error)
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
	// Started is called once, when QEMU runs and the daemon knows; until then whatever goes wrong is what Run returns.
	Started func(control.Server)
	// Say tells the user what happens to the server. It must not wait for whoever listens.
	Say func(format string, args ...any)
}

// Find finds Program, or refuses and names what to install.
func Find() (string, error) {
	if runtime.GOARCH != "amd64" {
		return "", refusal.New(refusal.Failed, "attach the disks, and run the machine with what this system has", "servers run on x86-64 alone, and this program is built for %s", runtime.GOARCH)
	}
	path, err := exec.LookPath(Program)
	if err != nil {
		return "", refusal.New(refusal.Failed, "install it: on Debian it is in the package qemu-system-x86", "servers need QEMU, and there is no %s in $PATH", Program)
	}
	return path, nil
}

// Run runs a server until it ends. That a guest shut down, or was made to, is no error. The end of ctx, SIGTERM, SIGINT and SIGHUP ask the guest to shut
// down; a signal after that switches it off.
func Run(ctx context.Context, o Options) error {
	program, err := Find()
	if err != nil {
		return err
	}
	before := ctx.Err() != nil // a signal that came before we listen
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) {
		signal.Notify(signals, syscall.SIGHUP)
	}
	defer signal.Stop(signals)
	r := newRunner(o, program, normal)
	go r.hearSignals(before, ctx.Done(), signals)
	return r.run(context.WithoutCancel(ctx))
}

// hearSignals counts signals. That of ctx is one of them, which is heard here too, unless it came before.
func (r *runner) hearSignals(before bool, ended <-chan struct{}, signals <-chan os.Signal) {
	heard, told := 0, 0
	if before {
		heard = 1
	}
	for {
		for ; told < heard; told++ {
			r.post(r.asked)
		}
		select {
		case <-signals:
			heard++
			ended = nil
		case <-ended:
			ended = nil
			if told == 0 {
				// Its own signal comes, too, unless it was no signal.
				r.post(r.asked)
				told++
			}
		case <-r.done:
			return
		}
	}
}

// asked is a signal: the first one asks the guest, and the second does not.
func (r *runner) asked() {
	if r.askedBefore {
		r.switchOff("the guest was switched off by a signal")
		return
	}
	r.askedBefore = true
	r.stop(r.patience)
}
