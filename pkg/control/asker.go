package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"syscall"
	"time"

	"nbdcrypt/pkg/refusal"
)

// Asker is the daemon's end of a call that a passphrase follows. It is the call's ResponseWriter, before the passphrase was
// asked for and after it. Whoever makes one closes it.
type Asker struct {
	http.ResponseWriter
	request *http.Request
	// conn is the connection once it was taken over from the HTTP server.
	conn net.Conn
}

// NewAsker makes the Asker of a call.
func NewAsker(w http.ResponseWriter, r *http.Request) *Asker {
	return &Asker{ResponseWriter: w, request: r}
}

// Passphrase asks for the passphrase and reads it into memory that room gives for its length, and nowhere else.
func (a *Asker) Passphrase(room func(length int) ([]byte, error)) error {
	if a.request.Header.Get("Upgrade") != upgradePassphrase || a.request.ContentLength != 0 {
		return refusal.New(refusal.Usage, "use a client of this daemon's version", "this call is followed by a passphrase: it needs the header Upgrade: %s and no body",
			upgradePassphrase)
	}
	raw, err := a.takeOver()
	if err != nil {
		return err
	}
	_ = a.conn.SetDeadline(time.Now().Add(passphraseTime))
	defer a.conn.SetDeadline(time.Time{})
	if _, err := io.WriteString(a.conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: "+upgradePassphrase+"\r\n\r\n"); err != nil {
		return notSent(err)
	}
	var length [4]byte
	if err := readFull(raw, length[:]); err != nil {
		return notSent(err)
	}
	n := int64(binary.BigEndian.Uint32(length[:]))
	if err := CheckPassphrase(int(n)); err != nil {
		return err
	}
	memory, err := room(int(n))
	if err != nil {
		return err
	}
	return notSent(readFull(raw, memory))
}

// takeOver takes the connection from the HTTP server. What the server has read ahead lies in its buffers: a client that sends
// before it is asked is refused, so that no passphrase ever gets there unnoticed.
func (a *Asker) takeOver() (syscall.RawConn, error) {
	conn, ahead, err := http.NewResponseController(a.ResponseWriter).Hijack()
	if err != nil {
		return nil, fmt.Errorf("control: taking the connection over: %w", err)
	}
	a.conn = conn
	if n := ahead.Reader.Buffered(); n > 0 {
		early, _ := ahead.Peek(n) // they are there: it can't fail
		clear(early)
		return nil, refusal.New(refusal.Usage, "send the passphrase after the answer 101", "%d bytes came before they were asked for", n)
	}
	socket, ok := conn.(syscall.Conn)
	if !ok {
		return nil, errors.New("control: a passphrase came over something that is no socket")
	}
	return socket.SyscallConn()
}

// readFull fills memory by read(2) alone.
func readFull(raw syscall.RawConn, memory []byte) error {
	for len(memory) > 0 {
		n, failed := 0, error(nil)
		err := raw.Read(func(fd uintptr) bool {
			n, failed = syscall.Read(int(fd), memory)
			return failed != syscall.EAGAIN
		})
		switch {
		case failed == syscall.EINTR:
		case err != nil:
			return err // failed only says then that nothing was there yet
		case failed != nil:
			return failed
		case n == 0:
			return io.ErrUnexpectedEOF
		default:
			memory = memory[n:]
		}
	}
	return nil
}

// notSent makes a refusal of a passphrase that did not come.
func notSent(err error) error {
	if err == nil {
		return nil
	}
	return refusal.New(refusal.Failed, "try again", "the passphrase did not arrive whole within %v: %w", passphraseTime, err)
}

// WriteHeader implements http.ResponseWriter. What follows ends with the connection.
func (a *Asker) WriteHeader(status int) {
	if a.conn == nil {
		a.ResponseWriter.WriteHeader(status)
		return
	}
	// A caller who has gone is no error of ours.
	_, _ = fmt.Fprintf(a.conn, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n", status, http.StatusText(status))
}

// Write implements http.ResponseWriter.
func (a *Asker) Write(b []byte) (int, error) {
	if a.conn == nil {
		return a.ResponseWriter.Write(b)
	}
	return a.conn.Write(b)
}

// Unwrap is for http.ResponseController, which sets the deadlines of answers.
func (a *Asker) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// Close ends a connection that was taken over.
func (a *Asker) Close() {
	if a.conn != nil {
		_ = a.conn.Close()
	}
}
