// Package cli is the command line: one file a command, no globals. It knows the daemon only through pkg/control; what
// runs in this process (serve, demo) is handed in as hooks. The words, fields and exit codes are those of docs/cli.md.
//
// Rules of the user interface: results go to stdout and everything else to stderr; with --json both are JSON and a
// list is never null; nothing destroys or strands data without a yes; an error says what to do next.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/bench/iobench"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/shield"
)

// Hooks are what the command line needs from the program around it.
type Hooks struct {
	// Serve runs the daemon until ctx ends.
	Serve func(ctx context.Context, options ServeOptions, stdout, stderr io.Writer) error
	// Demo tells and checks the main job in a temporary directory.
	Demo func(ctx context.Context, options DemoOptions, stdout, stderr io.Writer) error
	// Fill puts many disks and keys into a state directory, for bench scale.
	Fill func(ctx context.Context, what iobench.Fill) error
	// Env is where defaults come from.
	Env Env
}

// app is one run of the program.
type app struct {
	hooks      Hooks
	isTerminal func(stream any) bool
	// typed reads a line from the terminal that does not show; hide keeps the process from being looked into before.
	typed   func(ctx context.Context, in io.Reader) ([]byte, error)
	hide    func() error
	machine machine
	// args are this command line; program is what a keeper in the background is started from, this one where it is empty.
	args    []string
	program string
	json    bool
	project string
	run     string
}

// Main runs one command line (without the program's name) and returns the exit code.
func Main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer, hooks Hooks) int {
	a := &app{hooks: hooks, isTerminal: isTerminal, typed: typed, hide: shield.Harden, machine: theMachine(hooks.Env.UID)}
	return a.main(ctx, args, stdin, stdout, stderr)
}

func (a *app) main(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := a.root()
	a.args = args
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	failed, err := root.ExecuteContextC(ctx)
	if err == nil {
		return int(refusal.OK)
	}
	var refused *refusal.Error
	if !errors.As(err, &refused) {
		// The commands themselves return refusals only (see runs): what is left is cobra's, about the command line.
		refused = usage(failed, "%w", err)
	}
	a.complain(stderr, refused, args)
	return int(refused.Code)
}

// complain prints a refusal. The command line is looked at too, because --json may stand behind what was wrong in it.
func (a *app) complain(stderr io.Writer, refused *refusal.Error, args []string) {
	if a.json || slices.Contains(args, "--json") {
		encoder := json.NewEncoder(stderr)
		encoder.SetEscapeHTML(false)
		_ = encoder.Encode(control.ErrorBody{Error: control.ErrorOf(refused)}) // there is nowhere left to complain
		return
	}
	fmt.Fprintf(stderr, "nbdcrypt: %s\n", refused.Message)
	if refused.Hint != "" {
		fmt.Fprintf(stderr, "  → %s\n", refused.Hint)
	}
}

// usage is the refusal of a command line that is wrong.
func usage(cmd *cobra.Command, format string, args ...any) *refusal.Error {
	return refusal.New(refusal.Usage, fmt.Sprintf("`%s --help` shows how it is called", cmd.CommandPath()), format, args...)
}

// runs makes a command's function, whose every error is a refusal.
func runs(fn func(cmd *cobra.Command, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		if err := fn(cmd, args); err != nil {
			return refusal.From(err)
		}
		return nil
	}
}
