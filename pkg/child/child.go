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

	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/secret"
)

// marker is the name under which the program is started as a child; the word of its operation follows.
const marker = "nbdcrypt-child"

// lastTime is what a child may take to be gone once it was killed. One that hangs in the kernel, as a driver lets it, takes
// longer, and nobody waits for that.
const lastTime = 500 * time.Millisecond

// Main does a child's work, where this process is one, and tells so. It has to be the first thing that a program does, and
// the last where it returns true.
func Main() bool {
	if len(os.Args) != 2 || os.Args[0] != marker {
		return false
	}
	serve(os.Args[1], 0, 1)
	return true
}

// errSlow says that an operation took longer than it may.
type errSlow struct{ limit time.Duration }

func (e errSlow) Error() string { return fmt.Sprintf("it took more than %v", e.limit) }

// outcome is how an operation ended.
type outcome struct {
	answer *secret.Key
	err    error
}

// run runs a child for an operation, on a request whose parts go there from where they lie. The answer is the caller's to
// destroy.
func run(ctx context.Context, op *operation, why secret.Purpose, parts ...[]byte) (*secret.Key, error) {
	if n := total(parts); n > op.request {
		return nil, fmt.Errorf("%w: %d bytes, and %s takes %d", errRequest, n, op.word, op.request)
	}
	if err := op.enter(ctx); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, op.timeout, errSlow{op.timeout})
	sent, ended, left := make(chan struct{}), make(chan outcome), make(chan struct{})
	go func() {
		defer op.leave()
		defer cancel()
		o := ask(ctx, op, why, parts, sent)
		select {
		case ended <- o:
		case <-left:
			if o.answer != nil {
				o.answer.Destroy()
			}
		}
	}()
	<-sent // the parts are the caller's again: a request fits into a pipe, so that writing it waits for nobody
	select {
	case o := <-ended:
		return o.answer, o.err
	case <-ctx.Done():
	}
	select {
	case o := <-ended:
		return o.answer, o.err
	case <-time.After(lastTime):
		close(left)
		return nil, context.Cause(ctx)
	}
}

// ask runs a child and waits until it is gone. The thread is held meanwhile: a child is killed when the thread that made
// it ends (PR_SET_PDEATHSIG).
func ask(ctx context.Context, op *operation, why secret.Purpose, parts [][]byte, sent chan<- struct{}) outcome {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	cmd := exec.CommandContext(ctx, "/proc/self/exe")
	cmd.Args, cmd.Env, cmd.Dir = []string{marker, op.word}, []string{}, "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, out, err := process.StartPiped(cmd)
	if err != nil {
		close(sent)
		return outcome{err: err}
	}
	defer out.Close()
	// A child that died early makes writing fail; how it ended says more than that.
	errIn := send(in, parts)
	close(sent)
	answer, err := readAnswer(out, op.answer, why)
	if err == nil {
		_ = cmd.Process.Kill() // it has nothing left to do, and holds memory and secrets until it is gone
		_ = cmd.Wait()
		return outcome{answer: answer}
	}
	ended := cmd.Wait()
	var failed *failure
	switch {
	case errors.As(err, &failed): // it said why
	case ctx.Err() != nil:
		err = context.Cause(ctx)
	case ended != nil:
		err = ended
	default:
		err = errors.Join(err, errIn)
	}
	return outcome{err: err}
}

func send(in *os.File, parts [][]byte) (err error) {
	for _, p := range parts {
		_, errPart := in.Write(p)
		err = errors.Join(err, errPart)
	}
	return errors.Join(err, in.Close())
}
