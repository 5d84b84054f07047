package control

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// A passphrase follows its call, and is no part of it: the body of a request would go through buffers of net/http and the
// heap, where nothing wipes it. The call has headers only and asks for an upgrade (RFC 9110, section 7.8). The daemon answers
// 101 when it has looked at everything else and wants the passphrase; then the client sends its length (four bytes, big
// endian) and its bytes, and the daemon answers as it would have answered any call, and closes. Where the daemon does not
// want it, it answers right away.
const (
	upgradePassphrase = "nbdcrypt-passphrase"
	// MaxPassphrase is the longest passphrase, in bytes.
	MaxPassphrase = 1024
	// passphraseTime is what a client may take to send it: a person has typed it before.
	passphraseTime = 5 * time.Second
)

// CheckPassphrase refuses what can't be a passphrase.
func CheckPassphrase(length int) error {
	if length < 1 || length > MaxPassphrase {
		return refusal.New(refusal.Usage, "a passphrase has 8 to 1024 bytes", "a passphrase can't have %d bytes", length)
	}
	return nil
}

// askWith makes a call that a passphrase follows, and wipes the passphrase. It asks once: there is no body that could be sent
// again.
func askWith[T any](ctx context.Context, c *Client, cl call, passphrase []byte) (out T, err error) {
	defer clear(passphrase)
	if err := CheckPassphrase(len(passphrase)); err != nil {
		return out, err
	}
	request, err := c.request(ctx, uuid.NewString(), cl)
	if err != nil {
		return out, c.failed(ctx, err)
	}
	conn, err := new(net.Dialer).DialContext(ctx, "unix", c.socket)
	if err != nil {
		return out, c.failed(ctx, err)
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	status, body, err := converse(conn, request, passphrase)
	switch {
	case err != nil:
		return out, c.failed(ctx, err)
	case status < 200 || status > 299:
		return out, answered(status, body)
	}
	return out, decode(body, &out)
}

// converse sends a call, and the passphrase once it is wanted.
func converse(conn net.Conn, request *http.Request, passphrase []byte) (int, []byte, error) {
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", upgradePassphrase)
	if err := request.Write(conn); err != nil {
		return 0, nil, err
	}
	in := bufio.NewReader(conn)
	answer, err := http.ReadResponse(in, request)
	if err == nil && answer.StatusCode == http.StatusSwitchingProtocols {
		// A daemon that closes meanwhile has said why before; so the answer is read whatever this gives.
		_, _ = conn.Write(binary.BigEndian.AppendUint32(nil, uint32(len(passphrase))))
		_, _ = conn.Write(passphrase)
		answer, err = http.ReadResponse(in, request)
	}
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	return answer.StatusCode, body, err
}
