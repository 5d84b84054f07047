package daemon

import (
	"bufio"
	"bytes"
	"net"
	"net/http"
	"net/http/httptest"
	"time"
)

// taker takes an answer also of those who write past the HTTP server, as what hands out keys does.
type taker struct {
	*httptest.ResponseRecorder
	wire *wire
}

func newTaker() *taker { return &taker{ResponseRecorder: httptest.NewRecorder()} }

// Hijack implements http.Hijacker.
func (t *taker) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	t.wire = &wire{}
	return t.wire, bufio.NewReadWriter(bufio.NewReader(t.wire), bufio.NewWriter(t.wire)), nil
}

// answer is what was taken.
func (t *taker) answer() (status int, body []byte) {
	if t.wire == nil {
		return t.Code, t.Body.Bytes()
	}
	_, body, _ = bytes.Cut(t.wire.Bytes(), []byte("\r\n\r\n"))
	return http.StatusOK, body
}

// wire is a connection into memory.
type wire struct{ bytes.Buffer }

func (*wire) Close() error                     { return nil }
func (*wire) LocalAddr() net.Addr              { return nil }
func (*wire) RemoteAddr() net.Addr             { return nil }
func (*wire) SetDeadline(time.Time) error      { return nil }
func (*wire) SetReadDeadline(time.Time) error  { return nil }
func (*wire) SetWriteDeadline(time.Time) error { return nil }
