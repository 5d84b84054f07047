// Package child computes what needs libraries that allocate, on secrets, in a process of its own: this program again, for
// a second or so. What such a library leaves on its heap and its stacks goes with that process, which nobody may trace and
// which makes no core; what goes in and what comes out passes through pipes, straight from and into memory of pkg/secret.
//
// It does not promise that the pages are zeroed before the kernel gives them to another use, nor anything against who could
// trace the child before its first instructions: a process of the same user that waits for just that.
package child

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// marker is the name under which the program is started as a child.
const marker = "nbdcrypt-argon2"

// KeySize is the length of what Argon2 gives.
const KeySize = 32

// timeout is far more than parameters within the limits take on a slow machine, swapping.
const timeout = 2 * time.Minute

var errSlow = fmt.Errorf("it took more than %v", timeout)

// turn lets one child run at a time: each takes as much memory as its parameters say.
var turn = make(chan struct{}, 1)

// Main does a child's work, where this process is one, and tells so. It has to be the first thing that a program does, and
// the last where it returns true.
func Main() bool {
	if len(os.Args) != 1 || os.Args[0] != marker {
		return false
	}
	serve(0, 1)
	return true
}

// Argon2 is argon2id of a passphrase. The key is the caller's to destroy.
func Argon2(ctx context.Context, pass *secret.Key, p Params, salt []byte) (*secret.Key, error) {
	head, err := request{p, salt, pass.Bytes()}.head()
	if err != nil {
		return nil, err
	}
	select {
	case turn <- struct{}{}:
	case <-ctx.Done():
		return nil, fmt.Errorf("child: waiting for another one to end: %w", ctx.Err())
	}
	defer func() { <-turn }()
	key, err := secret.Work(KeySize, secret.Purpose{Kind: "derived", For: "opening or making a passphrase slot"})
	if err != nil {
		return nil, fmt.Errorf("child: %w", err)
	}
	if err := ask(ctx, head, pass, key); err != nil {
		key.Destroy()
		return nil, explain(err, p)
	}
	return key, nil
}

// ask runs a child and waits until it is gone. The thread is held meanwhile: a child is killed when the thread that made
// it ends (PR_SET_PDEATHSIG).
func ask(ctx context.Context, head []byte, pass, key *secret.Key) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeoutCause(ctx, timeout, errSlow)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Env, cmd.Dir = []string{marker}, []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, out, err := start(cmd)
	if err != nil {
		return err
	}
	defer out.Close()
	// A child that died early makes writing fail; how it ended says more than that.
	_, errHead := in.Write(head)
	_, errPass := in.Write(pass.Bytes())
	errIn := errors.Join(errHead, errPass, in.Close())
	if err = readAnswer(out, key.Bytes()); err == nil {
		_ = cmd.Process.Kill() // it has nothing left to do, and holds memory and secrets until it is gone
		_ = cmd.Wait()
		return nil
	}
	ended := cmd.Wait()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case ended != nil:
		return ended
	}
	return errors.Join(err, errIn)
}

// start starts cmd between two pipes and returns our ends of them. They are given to it as files: anything else would be
// copied through buffers on the heap.
func start(cmd *exec.Cmd) (in, out *os.File, err error) {
	theirIn, in, err := os.Pipe()
	if err != nil {
		return nil, nil, err
	}
	defer theirIn.Close()
	out, theirOut, err := os.Pipe()
	if err != nil {
		return nil, nil, errors.Join(err, in.Close())
	}
	defer theirOut.Close()
	cmd.Stdin, cmd.Stdout = theirIn, theirOut
	if err := cmd.Start(); err != nil {
		return nil, nil, errors.Join(err, in.Close(), out.Close())
	}
	return in, out, nil
}

// explain makes a refusal of how a child failed. One that was killed, or gave up allocating, had too little memory.
func explain(err error, p Params) error {
	var exit *exec.ExitError
	need := fmt.Sprintf("%d MiB of memory", p.Memory>>10)
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("child: computing argon2: %w", err)
	case errors.As(err, &exit):
		return refusal.New(refusal.Failed, "see that "+need+" are free for it (free -m, MemoryMax= of systemd), then try again",
			"the process that computes argon2 ended early: %w", err)
	case errors.Is(err, errSlow):
		return refusal.New(refusal.Failed, "see that "+need+" are free for it, so that it need not swap, then try again",
			"the process that computes argon2 was stopped: %w", err)
	}
	return refusal.New(refusal.Failed, "see what the system's log says of it, then try again", "argon2 could not be computed: %w", err)
}
