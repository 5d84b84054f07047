package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/vm"
)

func (a *app) serverConsole() *cobra.Command {
	var log bool
	cmd := &cobra.Command{
		Use: "console SERVER", Short: "Talk with a server over its serial console",
		Long: `Show what the server's serial console has said lately, then what it says, and send it what you type, until the server ends. On a terminal Ctrl-] leaves; everything else,
Ctrl-C too, is the guest's. With --log it shows what there is and ends.

The last 256 KiB are kept, in the memory of the server's runner. Only who started the server, and root, can open its console.`,
		Example:           "  nbdcrypt server console web1\n  nbdcrypt server console web1 --log",
		Args:              wants("SERVER"),
		ValidArgsFunction: a.completeServer,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			s, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Server, error) {
				return c.ServerShow(ctx, args[0])
			})
			if err != nil {
				return err
			}
			if s.Console == "" {
				return refusal.New(refusal.Busy, "`nbdcrypt server start "+quote(s.Name)+"` starts it", "server %s is %s: it has no console", s.Name, s.Status)
			}
			return a.console(cmd, s, log)
		}),
	}
	cmd.Flags().BoolVar(&log, "log", false, "show what was said lately, and end")
	return cmd
}

// console connects this terminal, or whatever stands in its place, to a server's console.
func (a *app) console(cmd *cobra.Command, s control.Server, log bool) error {
	in := cmd.InOrStdin()
	if !log && a.isTerminal(in) {
		a.say(cmd, "console of server %s; Ctrl-] leaves", s.Name)
		back, err := a.machine.raw(in)
		if err != nil {
			return fmt.Errorf("the terminal: %w", err)
		}
		defer func() { back(); a.say(cmd, "") }() // what the guest said last may have no end of line
		in = &untilLeave{in: in}
	}
	return a.machine.console(cmd.Context(), s.Console, in, cmd.OutOrStdout(), log)
}

// leaveKey is Ctrl-], as telnet has it: hardly a guest wants it.
const leaveKey = 0x1d

// untilLeave is what is typed, until the key that leaves.
type untilLeave struct {
	in   io.Reader
	left bool
}

func (u *untilLeave) Read(p []byte) (int, error) {
	if u.left {
		return 0, vm.ErrLeave
	}
	n, err := u.in.Read(p)
	if at := bytes.IndexByte(p[:n], leaveKey); at >= 0 {
		u.left = true
		if at == 0 {
			return 0, vm.ErrLeave
		}
		return at, nil
	}
	return n, err
}

// raw has a terminal hand over each key as it is pressed, and returns what sets it back.
func raw(in io.Reader) (back func(), err error) {
	file, is := in.(*os.File)
	if !is {
		return nil, errors.New("stdin is no file")
	}
	before, err := term.MakeRaw(int(file.Fd()))
	if err != nil {
		return nil, err
	}
	return func() { _ = term.Restore(int(file.Fd()), before) }, nil
}
