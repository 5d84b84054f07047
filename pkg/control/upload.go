package control

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

const (
	// continueTime is how long the daemon may take to refuse an upload before any of it is sent.
	continueTime = 30 * time.Second
	// uploadIdle is how long the daemon waits for more of an upload: neither what it makes nor the daemon's end waits for ever.
	uploadIdle = time.Minute
	// answerTime is how long a refused sender may take to read why.
	answerTime = 5 * time.Second
)

// upload makes a call with what send sends, and decodes its answer. It is never made twice: what was sent may be gone.
func (c *Client) upload(ctx context.Context, cl call, send func(*FrameWriter) error, out any) error {
	body, sink := io.Pipe()
	request, err := c.request(ctx, uuid.NewString(), cl)
	if err != nil {
		return err
	}
	request.Body, request.ContentLength = body, -1
	request.Header.Set("Expect", "100-continue")
	sent := make(chan error, 1)
	go func() {
		err := sending(NewFrameWriter(sink), send)
		sent <- err
		sink.CloseWithError(err)
	}()
	defer body.Close() // an answer that comes early ends the sending, once it is read: the transport cuts the connection then
	// The transport waits for who reads the body, even once ctx has ended, and the sender may wait for its source for long.
	defer context.AfterFunc(ctx, func() { body.Close() })()
	answer, err := c.http.Do(request)
	if err != nil {
		return c.notAnswered(ctx, sent, err)
	}
	defer answer.Body.Close()
	text, err := whole(answer)
	switch {
	case err != nil:
		return c.failed(ctx, err)
	case answer.StatusCode < 200 || answer.StatusCode > 299:
		return answered(answer.StatusCode, text)
	}
	return decode(text, out)
}

// notAnswered says why there is no answer: the sender has failed, or it is the connection.
func (c *Client) notAnswered(ctx context.Context, sent <-chan error, err error) error {
	select {
	case failed := <-sent:
		if failed != nil && ctx.Err() == nil && !errors.Is(failed, io.ErrClosedPipe) {
			return failed
		}
	default: // it may wait for its source for long
	}
	return c.failed(ctx, err)
}

// sending runs send, and says that there is nothing yet while it takes its time.
func sending(frames *FrameWriter, send func(*FrameWriter) error) error {
	ticker, ended := time.NewTicker(waitEvery), make(chan struct{})
	defer ticker.Stop()
	defer close(ended)
	go func() {
		for {
			select {
			case <-ticker.C:
				frames.wait()
			case <-ended:
				return
			}
		}
	}()
	return send(frames)
}

// Upload is the daemon's end of a call that an upload comes with. Nothing of it is read before Frames is asked for: a caller who waits for
// "100 Continue" sends nothing to a daemon that refuses the call. End has to be called after the answer.
type Upload struct {
	w    http.ResponseWriter
	body io.ReadCloser
	read bool
	idle time.Duration
}

// NewUpload makes the Upload of a call. Until more is read, what there is to read has bodyTime.
func NewUpload(w http.ResponseWriter, r *http.Request) *Upload {
	deadline(w, (*http.ResponseController).SetReadDeadline, bodyTime)
	w.Header().Set("Connection", "close") // End takes it
	return &Upload{w: w, body: r.Body, idle: uploadIdle}
}

// Frames reads what is uploaded, of which all ends before limit. When ctx ends, so does it.
func (u *Upload) Frames(ctx context.Context, limit int64) (frames *FrameReader, done func()) {
	u.read = true
	stop := context.AfterFunc(ctx, func() { deadline(u.w, (*http.ResponseController).SetReadDeadline, 0) })
	frames = NewFrameReader(&uploadBody{u, ctx}, limit)
	return frames, func() {
		frames.Wipe()
		stop()
		_ = http.NewResponseController(u.w).SetReadDeadline(time.Time{})
	}
}

// uploadBody gives each read its time.
type uploadBody struct {
	*Upload
	ctx context.Context
}

func (b *uploadBody) Read(p []byte) (int, error) {
	deadline(b.w, (*http.ResponseController).SetReadDeadline, b.idle)
	if b.ctx.Err() != nil {
		return 0, errStopping
	}
	n, err := b.body.Read(p)
	if err != nil && !errors.Is(err, io.EOF) && b.ctx.Err() != nil { // the read was cut off for that
		err = errStopping
	}
	return n, err
}

var errStopping = refusal.New(refusal.Unreachable, "send it again once it runs", "the daemon is shutting down")

// Refuse answers with a refusal, and takes what is still sent for as long as it takes the caller to read that.
func (u *Upload) Refuse(err error) {
	if !u.read {
		WriteError(u.w, err)
		return
	}
	control := http.NewResponseController(u.w)
	_ = control.EnableFullDuplex() // else the answer would wait for all that is sent
	WriteError(u.w, err)
	_ = control.Flush()
	deadline(u.w, (*http.ResponseController).SetReadDeadline, answerTime)
	rest := make([]byte, 64<<10)
	for err = nil; err == nil; {
		_, err = u.body.Read(rest)
	}
	clear(rest)
}

// End ends the connection of an upload that was answered. The server has read ahead into a buffer that it would keep for the next connection,
// with what was uploaded in it: the connection is taken from it, and the buffer wiped.
func (u *Upload) End() {
	control := http.NewResponseController(u.w)
	_ = control.Flush()
	conn, ahead, err := control.Hijack()
	if err != nil {
		return // the server has no connection any more, or one of another protocol
	}
	ahead.Reader.Reset(zeros{})
	_, _ = ahead.Peek(ahead.Reader.Size())
	_ = conn.Close() // who sent all has the answer
}

// zeros are read without end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
