package token

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"nbdcrypt/pkg/process"
)

// maxWords bounds what a helper says in words.
const maxWords = 500

// run starts a helper for one request. The thread is held meanwhile: a helper is killed when the thread that made it ends
// (PR_SET_PDEATHSIG).
func run(ctx context.Context, r Request, take func(io.Reader) error) (Answer, string, error) {
	program, err := findHelper()
	if err != nil {
		return 0, "", fmt.Errorf("%w; `make pkcs11` builds it", err)
	}
	return runProgram(ctx, program, r, take)
}

func runProgram(ctx context.Context, program string, r Request, take func(io.Reader) error) (Answer, string, error) {
	head, err := r.head()
	if err != nil {
		return 0, "", err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("it did not answer within %v", limit))
	defer cancel() // which kills it; once it has answered it has nothing left to do
	cmd := exec.CommandContext(ctx, program)
	cmd.Env, cmd.Dir = environment(os.Environ()), "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	in, out, err := process.StartPiped(cmd)
	if err != nil {
		return 0, "", err
	}
	defer out.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }() // a module may hang where not even a kill ends it; nobody waits for that here
	defer context.AfterFunc(ctx, func() {
		_ = in.SetDeadline(time.Unix(1, 0))
		_ = out.SetDeadline(time.Unix(1, 0))
	})()
	_, errHead := in.Write(head)
	_, errData := in.Write(r.Data)
	errIn := errors.Join(errHead, errData, in.Close())
	answer, words, err := readAnswer(out, take)
	if err == nil {
		return answer, words, nil
	}
	return 0, "", whyNot(ctx, ended, errors.Join(err, errIn))
}

// whyNot tells why there was no answer: how a helper ended says more than what happened to its pipes.
func whyNot(ctx context.Context, ended chan error, err error) error {
	select {
	case end := <-ended:
		if end != nil && ctx.Err() == nil {
			return fmt.Errorf("the program %s ended early: %w", Helper, end)
		}
	case <-ctx.Done():
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func readAnswer(from io.Reader, take func(io.Reader) error) (Answer, string, error) {
	var kind [1]byte
	if _, err := io.ReadFull(from, kind[:]); err != nil {
		return 0, "", fmt.Errorf("its answer: %w", err)
	}
	if Answer(kind[0]) == Done {
		if err := take(from); err != nil {
			return 0, "", fmt.Errorf("its answer: %w", err)
		}
		return Done, "", nil
	}
	words, err := io.ReadAll(io.LimitReader(from, maxWords))
	return Answer(kind[0]), strings.ToValidUTF8(string(words), "?"), err
}

// ownVariables are what the service manager told the daemon, and nobody else.
var ownVariables = []string{"NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_USEC", "WATCHDOG_PID", "CREDENTIALS_DIRECTORY"}

// environment is what a module gets: all that the daemon has but what is its own, since every vendor's finds its settings through other variables
// (SOFTHSM2_CONF, YUBIHSM_PKCS11_CONF, NFAST_HOME).
func environment(all []string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return slices.Contains(ownVariables, name)
	})
}
