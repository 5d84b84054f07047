package vm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	"nbdcrypt/pkg/refusal"
)

// ErrLeave of a Console's input leaves the console.
var ErrLeave = errors.New("vm: the user leaves the console")

// Console is the console of a server that runs, at control.Server.Console: it writes to out what was kept of it and, unless log, what comes, and sends the guest
// what it reads from in, until the server ends, in returns ErrLeave, or ctx ends, none of which is an error. At the end of in it stays; a read from in may outlive the call.
func Console(ctx context.Context, path string, in io.Reader, out io.Writer, log bool) error {
	if log {
		path = filepath.Join(filepath.Dir(path), logSocket)
	}
	conn, err := dial(path)
	if err != nil {
		return noConsole(path, err)
	}
	defer conn.Close()
	ended := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer ended()
	if !log && in != nil {
		go typeTo(conn, in)
	}
	if _, err = io.Copy(to{out}, conn); errors.As(err, new(outError)) {
		return fmt.Errorf("vm: writing what is on the console: %w", err)
	}
	return nil // the end of the connection is the end of the server
}

// typeTo sends what is typed until the user leaves.
func typeTo(conn net.Conn, in io.Reader) {
	if _, err := io.Copy(conn, in); errors.Is(err, ErrLeave) {
		_ = conn.Close()
	}
}

// to is where the console goes, whose errors are told from those of the connection.
type to struct{ io.Writer }

type outError struct{ error }

func (e outError) Unwrap() error { return e.error }

func (w to) Write(p []byte) (int, error) {
	n, err := w.Writer.Write(p)
	if err != nil {
		err = outError{err}
	}
	return n, err
}

// dial opens a socket whose path may be longer than a socket's may.
func dial(path string) (net.Conn, error) {
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	return net.Dial("unix", fmt.Sprintf("/proc/self/fd/%d/%s", dir.Fd(), filepath.Base(path)))
}

func noConsole(path string, err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return refusal.New(refusal.Denied, "ask who started the server, or root", "the console %s is another user's", path)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return refusal.New(refusal.Busy, "`nbdcrypt server show` tells whether it runs", "there is no console at %s: the server has ended", path)
	}
	return fmt.Errorf("vm: opening the console: %w", err)
}
