package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// typed reads a line that does not show, but no longer than ctx lives; then the terminal is left as it was found. Package term
// would do it with copies of what is typed, and would not hear that somebody ends the input.
func typed(ctx context.Context, in io.Reader) ([]byte, error) {
	file, is := in.(*os.File)
	if !is {
		return nil, errors.New("reading the passphrase: stdin is no file")
	}
	fd := int(file.Fd())
	before, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	unseen := *before
	unseen.Lflag = unseen.Lflag&^unix.ECHO | unix.ICANON | unix.ISIG
	unseen.Iflag |= unix.ICRNL
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, &unseen); err != nil {
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	defer unix.IoctlSetTermios(fd, unix.TCSETS, before)
	got := make(chan line, 1)
	go func() { got <- readTyped(fd) }()
	select {
	case <-ctx.Done():
		return nil, errUndone
	case l := <-got:
		return l.bytes, l.err
	}
}

var errUndone = refusal.New(refusal.Failed, "", "interrupted: nothing was done")

// line is what was typed, in the one piece of memory that it ever was in.
type line struct {
	bytes []byte
	err   error
}

// readTyped reads from a terminal, which gives a line at a time, or nothing where somebody ends the input.
func readTyped(fd int) line {
	memory := make([]byte, control.MaxPassphrase+2)
	n, err := unix.Read(fd, memory)
	for err == unix.EINTR {
		n, err = unix.Read(fd, memory)
	}
	switch {
	case err != nil:
		return line{nil, fmt.Errorf("reading the passphrase: %w", err)}
	case n == 0:
		return line{nil, errUndone}
	case memory[n-1] == '\n':
		n--
	default: // The rest of a line that is too long must not become the next command of the shell.
		_ = unix.IoctlSetInt(fd, unix.TCFLSH, unix.TCIFLUSH)
	}
	return line{memory[:n], nil}
}
