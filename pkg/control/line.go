package control

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"
)

const (
	upgradeLine = "nbdcrypt-line"
	// maxLine bounds one line: the first of a run, with two dozen disks, has a tenth of it.
	maxLine = 256 << 10
	// sendTime is how long the other end may take to take a line.
	sendTime = 10 * time.Second
)

// Line is a connection that a call has turned into one for lines of JSON both ways. One goroutine may receive while others send.
type Line struct {
	conn io.ReadWriteCloser
	from *bufio.Reader
	mu   sync.Mutex // held by who sends
}

// AcceptLine turns the connection of a call into a Line, at the daemon's end.
func AcceptLine(w http.ResponseWriter) (*Line, error) {
	conn, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, fmt.Errorf("control: taking the connection over: %w", err)
	}
	_ = conn.SetDeadline(time.Time{})
	l := &Line{conn: conn, from: bufio.NewReader(io.MultiReader(io.LimitReader(buffered, int64(buffered.Reader.Buffered())), conn))}
	if err := l.write([]byte("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + upgradeLine + "\r\n\r\n")); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return l, nil
}

// line makes a call whose answer is a Line.
func (c *Client) line(ctx context.Context, cl call) (*Line, error) {
	request, err := c.request(ctx, uuid.NewString(), cl)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Connection", "Upgrade")
	request.Header.Set("Upgrade", upgradeLine)
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if conn, is := answer.Body.(io.ReadWriteCloser); is && answer.StatusCode == http.StatusSwitchingProtocols {
		return &Line{conn: conn, from: bufio.NewReader(conn)}, nil
	}
	defer answer.Body.Close()
	body, err := whole(answer)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	return nil, answered(answer.StatusCode, body)
}

// Send sends a line.
func (l *Line) Send(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("control: writing a line: %w", err)
	}
	return l.write(append(text, '\n'))
}

func (l *Line) write(b []byte) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if conn, is := l.conn.(net.Conn); is {
		_ = conn.SetWriteDeadline(time.Now().Add(sendTime))
	}
	_, err := l.conn.Write(b)
	return err
}

// Receive waits for a line. That the other end has closed is io.EOF.
func (l *Line) Receive(v any) error {
	var line []byte
	for {
		part, err := l.from.ReadSlice('\n')
		if line = append(line, part...); err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return err
		}
		if len(line) > maxLine {
			return fmt.Errorf("control: a line is longer than %d bytes", maxLine)
		}
	}
	if err := json.Unmarshal(line, v); err != nil {
		return fmt.Errorf("control: reading a line: %w", err)
	}
	return nil
}

// Close ends the line; who waits in Receive hears it.
func (l *Line) Close() error { return l.conn.Close() }
