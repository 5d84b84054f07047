package child

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// maxResponse is the most that a TPM answers with, and what a device wants to be read with at once.
	maxResponse  = 4096
	responseHead = 10
	// A TPM that tests itself, or that wants a command once more, is asked again after a while.
	busyTries = 100
	busyPause = 20 * time.Millisecond
)

// tpmWire speaks with a TPM, command by command.
type tpmWire struct {
	io.ReadWriteCloser
	// stream tells that an answer may come in pieces.
	stream bool
}

func openTPM(path string) (*tpmWire, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, &failure{classGone, err}
	}
	switch st.Mode().Type() {
	case os.ModeSocket:
		conn, err := net.Dial("unix", path)
		if err != nil {
			return nil, &failure{classGone, err}
		}
		return &tpmWire{conn, true}, nil
	case os.ModeDevice | os.ModeCharDevice:
		if !isTPM(st) {
			return nil, &failure{classGone, fmt.Errorf("%s is a device, and not that of a TPM", path)}
		}
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			return nil, &failure{classGone, err}
		}
		return &tpmWire{f, false}, nil
	}
	return nil, &failure{classGone, fmt.Errorf("%s is neither a device nor a socket", path)}
}

// isTPM asks the kernel what a device is before it is opened: whoever may add slots must not have the daemon open, and write to, any other.
func isTPM(st os.FileInfo) bool {
	rdev := st.Sys().(*syscall.Stat_t).Rdev
	class, err := os.Readlink(fmt.Sprintf("/sys/dev/char/%d:%d/subsystem", unix.Major(rdev), unix.Minor(rdev)))
	return err == nil && (filepath.Base(class) == "tpm" || filepath.Base(class) == "tpmrm")
}

// Send implements transport.TPM.
func (w *tpmWire) Send(command []byte) (response []byte, err error) {
	for range busyTries {
		if response, err = w.once(command); err != nil {
			return nil, &failure{classGone, err}
		}
		switch binary.BigEndian.Uint32(response[6:]) {
		case 0x908, 0x90a, 0x922: // TPM_RC_YIELDED, TPM_RC_TESTING, TPM_RC_RETRY
			time.Sleep(busyPause)
		default:
			return response, nil
		}
	}
	return response, nil
}

func (w *tpmWire) once(command []byte) ([]byte, error) {
	if _, err := w.Write(command); err != nil {
		return nil, err
	}
	b := make([]byte, maxResponse)
	n, err := w.Read(b)
	for err == nil && w.stream && (n < responseHead || n < min(maxResponse, int(binary.BigEndian.Uint32(b[2:])))) {
		var m int
		m, err = w.Read(b[n:])
		n += m
	}
	if err == nil && (n < responseHead || n != int(binary.BigEndian.Uint32(b[2:]))) {
		err = fmt.Errorf("an answer of %d bytes", n)
	}
	return b[:n], err
}
