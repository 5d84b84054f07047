package demo

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/refusal"
)

// quiet prepares a child process, which finds the tour's daemon.
func (t *tour) quiet(cmd *exec.Cmd) *exec.Cmd {
	return process.Quiet(cmd, "NBDCRYPT_RUN="+t.path("run"))
}

// tool shows and runs another program, which has to succeed.
func (t *tour) tool(ctx context.Context, words ...string) error {
	t.tell.command(words...)
	out, err := t.quiet(exec.CommandContext(ctx, words[0], words[1:]...)).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", words[0], err, bytes.TrimSpace(out))
	}
	return nil
}

// cli shows a command of this program and runs it with --json, for an answer that can be checked.
func (t *tour) cli(ctx context.Context, args ...string) (stdout, stderr []byte, err error) {
	t.tell.command(append([]string{"nbdcrypt"}, args...)...)
	cmd := t.quiet(exec.CommandContext(ctx, t.self, append(args, "--json")...))
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	err = cmd.Run()
	return out.Bytes(), complaint.Bytes(), err
}

// do runs a command that has no result.
func (t *tour) do(ctx context.Context, args ...string) error {
	_, stderr, err := t.cli(ctx, args...)
	if err != nil {
		return unexpected(args, stderr, err)
	}
	return nil
}

// ask runs a command whose result is a T.
func ask[T any](ctx context.Context, t *tour, args ...string) (answer T, err error) {
	stdout, stderr, err := t.cli(ctx, args...)
	if err != nil {
		return answer, unexpected(args, stderr, err)
	}
	if err := json.Unmarshal(stdout, &answer); err != nil {
		return answer, fmt.Errorf("nbdcrypt %s: its JSON: %w", strings.Join(args, " "), err)
	}
	return answer, nil
}

// refused runs a command that has to be refused with a code; the refusal is shown as a person sees it.
func (t *tour) refused(ctx context.Context, code refusal.Code, args ...string) error {
	_, stderr, err := t.cli(ctx, args...)
	var exit *exec.ExitError
	if err == nil || !errors.As(err, &exit) {
		return fmt.Errorf("nbdcrypt %s should have been refused: %v", strings.Join(args, " "), err)
	}
	complaint, err := complaint(stderr)
	if err != nil {
		return err
	}
	t.tell.said(t.short("nbdcrypt: " + complaint.Message + "\n  → " + complaint.Hint))
	return t.tell.all(
		check{exit.ExitCode() == int(code) && complaint.Code == int(code),
			fmt.Sprintf("refused, with exit code %d (%s)", code, meaning(code)), fmt.Sprintf("exit code %d", exit.ExitCode())},
		check{complaint.Message != "" && complaint.Hint != "", "and it says what to do next", string(stderr)})
}

// meaning is an exit code in words, for the codes that the story meets.
func meaning(code refusal.Code) string {
	return map[refusal.Code]string{
		refusal.Denied: "not permitted", refusal.KeyForbids: "the key forbids it", refusal.Unreachable: "the daemon can't be reached",
	}[code]
}

func complaint(stderr []byte) (*control.Error, error) {
	var body control.ErrorBody
	if err := json.Unmarshal(stderr, &body); err != nil || body.Error == nil {
		return nil, fmt.Errorf("stderr is no refusal in JSON: %s", stderr)
	}
	return body.Error, nil
}

// unexpected is the failure of a command that should have worked.
func unexpected(args []string, stderr []byte, err error) error {
	why := string(bytes.TrimSpace(stderr))
	if c, bad := complaint(stderr); bad == nil {
		why = c.Message
	}
	return fmt.Errorf("nbdcrypt %s: %w: %s", strings.Join(args, " "), err, why)
}
