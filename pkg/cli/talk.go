package cli

import (
	"context"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// client is a client of the daemon that the flags and the environment name.
func (a *app) client() (*control.Client, error) {
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
	m := newMeter(cmd.ErrOrStderr(), a.isTerminal(cmd.ErrOrStderr()))
	defer m.start()()
	return fn(cmd.Context(), client.Watching(m.news))
}
