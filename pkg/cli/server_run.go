package cli

import (
	"cmp"
	"context"
	"fmt"
	"os/user"
	"path/filepath"
	"strconv"
	"sync"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/vm"
)

// running is a server that this process runs. What is said before it runs is kept for whoever waits.
type running struct {
	say func(format string, args ...any)

	mu      sync.Mutex
	started bool
	said    []string
}

// run runs a server until it ends; started hears once that it runs.
func (r *running) run(ctx context.Context, a *app, name string, how startHow, started func(s control.Server, said []string)) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	run, err := a.hooks.Env.path(runPlace(), a.run)
	if err != nil {
		return err
	}
	runtime := a.hooks.Env.Getenv("XDG_RUNTIME_DIR")
	if !filepath.IsAbs(runtime) {
		runtime = ""
	}
	// Only a daemon of the same owner may be asked again: who finds the socket free must not be handed what the guest writes.
	err = a.machine.runServer(ctx, vm.Options{Client: client.OfOneOwner(), Server: name, RunDir: run, RuntimeDir: runtime, Reconnect: how.reconnect,
		Started: func(s control.Server) {
			s.By = cmp.Or(s.By, nameOf(a.hooks.Env.UID))
			started(s, r.begin())
		}, Say: r.tell})
	if err == nil && !r.hasStarted() {
		return refusal.New(refusal.Failed, "start it again", "interrupted: server %s was not started", name)
	}
	return err
}

// nameOf is what the daemon calls a user.
func nameOf(uid int) string {
	id := strconv.Itoa(uid)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}

// begin notes that the server runs, and returns what was said before.
func (r *running) begin() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started = true
	return r.said
}

func (r *running) hasStarted() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.started
}

func (r *running) tell(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.started {
		r.say(format, args...)
		return
	}
	r.said = append(r.said, fmt.Sprintf(format, args...))
}
