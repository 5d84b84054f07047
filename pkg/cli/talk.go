package cli

import (
	"context"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// client is a client of the daemon that the flags and the environment name.
func (a *app) client() (*control.Client, error) {
	if a.project == "" {
		return nil, refusal.New(refusal.Usage, "leave it out to mean the project "+control.DefaultProject, "--project is empty")
	}
	run, err := a.hooks.Env.path(runPlace(), a.run)
	if err != nil {
		return nil, err
	}
	return control.New(filepath.Join(run, control.SocketControl)).In(a.project), nil
}

// talk makes a call to the daemon, with a meter for a person who waits.
func talk[T any](a *app, cmd *cobra.Command, fn func(context.Context, *control.Client) (T, error)) (T, error) {
	client, err := a.client()
	if err != nil {
		var none T
		return none, err
	}
	m := a.meter(cmd)
	defer m.start()()
	return fn(cmd.Context(), client.Watching(m.news))
}

// meter is the meter of a command. A script that reads JSON from stderr gets an error there and nothing else.
func (a *app) meter(cmd *cobra.Command) *meter {
	terminal := a.isTerminal(cmd.ErrOrStderr())
	if a.json && !terminal {
		return newMeter(io.Discard, false)
	}
	return newMeter(cmd.ErrOrStderr(), terminal)
}
