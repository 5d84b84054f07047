package cli

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func isTerminal(stream any) bool {
	file, is := stream.(*os.File)
	return is && term.IsTerminal(int(file.Fd()))
}

// yesFlag adds --yes to a command that destroys or strands data.
func yesFlag(cmd *cobra.Command, yes *bool) {
	cmd.Flags().BoolVar(yes, "yes", false, "do it without asking")
}

// confirm asks for a yes on a terminal; anywhere else, and for any other answer, the act is refused with the daemon's
// hint: there may be something better to do than to say yes.
func (a *app) confirm(cmd *cobra.Command, asked *refusal.Error) error {
	what := asked.Message
	refused := refusal.New(refusal.Confirm, cmp.Or(asked.Hint, "repeat the command with --yes to do it"), "%s: that needs a yes", what)
	if !a.isTerminal(cmd.InOrStdin()) {
		return refused
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s. Go on? [y/N] ", what)
	answer, err := readLine(cmd.Context(), cmd.InOrStdin())
	if err != nil {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return refused
}

// readLine reads a line, but no longer than ctx lives: an interrupt must end a question that nobody answers.
func readLine(ctx context.Context, in io.Reader) (string, error) {
	type read struct {
		line string
		err  error
	}
	got := make(chan read, 1)
	go func() {
		line, err := bufio.NewReader(in).ReadString('\n')
		got <- read{line, err}
	}()
	select {
	case <-ctx.Done():
		return "", refusal.New(refusal.Failed, "", "interrupted: nothing was done")
	case r := <-got:
		if r.err != nil && !errors.Is(r.err, io.EOF) {
			return "", fmt.Errorf("reading the answer: %w", r.err)
		}
		return r.line, nil
	}
}

// confirmed makes a call that may need a yes: the daemon says so, then it is asked for and the call repeated with it.
func confirmed[T any](a *app, cmd *cobra.Command, yes bool, fn func(context.Context, *control.Client, bool) (T, error)) (T, error) {
	try := func(yes bool) (T, error) {
		return talk(a, cmd, func(ctx context.Context, c *control.Client) (T, error) { return fn(ctx, c, yes) })
	}
	v, err := try(yes)
	if yes || refusal.CodeOf(err) != refusal.Confirm {
		return v, err
	}
	if err := a.confirm(cmd, refusal.From(err)); err != nil {
		return v, err
	}
	return try(true)
}
