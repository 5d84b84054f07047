package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"syscall"

	"nbdcrypt/pkg/refusal"
)

// ErrorOf is err as it travels.
func ErrorOf(err error) *Error {
	r := refusal.From(err)
	return &Error{Code: int(r.Code), Message: r.Message, Hint: r.Hint}
}

// Refusal is e as the rest of the program knows it. A code that means success can't be an error's.
func (e *Error) Refusal() *refusal.Error {
	if e.Code <= int(refusal.OK) {
		return refusal.New(refusal.Failed, e.Hint, "%s", e.Message)
	}
	return refusal.New(refusal.Code(e.Code), e.Hint, "%s", e.Message)
}

// answered turns an answer that is no success into the refusal in its body.
func answered(status int, body []byte) error {
	var refused ErrorBody
	if err := json.Unmarshal(body, &refused); err != nil || refused.Error == nil {
		return refusal.New(refusal.Failed, "is the daemon of another version than this command? `nbdcrypt status` and `nbdcrypt version` tell",
			"the daemon answered %d (%s) without a reason", status, http.StatusText(status))
	}
	return refused.Error.Refusal()
}

// failed turns what the transport says into a refusal.
func (c *Client) failed(ctx context.Context, err error) error {
	var dial *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return refusal.New(refusal.Failed, "", "the daemon at %s did not answer in time", c.socket)
	case ctx.Err() != nil:
		return refusal.New(refusal.Failed, "what was asked may have been done all the same: look with `list` or `show`",
			"interrupted before the daemon answered")
	case errors.As(err, &dial) && dial.Op == "dial":
		return c.unreachable(dial.Err)
	case broken(err):
		return refusal.New(refusal.Unreachable, "its log says why; what was asked may have been done: look with `list` or `show` once it runs again",
			"the daemon at %s closed the connection before it answered", c.socket)
	}
	return fmt.Errorf("control: asking the daemon: %w", err)
}

// unreachable says which socket was tried and what would make it answer.
func (c *Client) unreachable(err error) error {
	run := filepath.Dir(c.socket)
	hint := fmt.Sprintf("start it with `nbdcrypt serve --run %s`, or name the run directory of one that runs with --run or $NBDCRYPT_RUN", run)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return refusal.New(refusal.Unreachable, hint, "no daemon: there is no socket %s", c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		return refusal.New(refusal.Unreachable, hint, "no daemon: nothing listens on %s", c.socket)
	case errors.Is(err, syscall.EACCES):
		hint = "name the run directory of your own daemon with --run or $NBDCRYPT_RUN, or ask its administrator to open this one"
		return refusal.New(refusal.Unreachable, hint, "you may not open the daemon's socket %s", c.socket)
	}
	return refusal.New(refusal.Unreachable, hint, "the daemon's socket %s can't be opened: %w", c.socket, err)
}

// broken tells a connection that ended before its answer did.
func broken(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) ||
		errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE) || errors.Is(err, net.ErrClosed)
}
