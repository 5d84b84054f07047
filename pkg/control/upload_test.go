package control

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// uploads serves one upload after the other with do, and counts what reaches it.
func uploads(t *testing.T, do func(*Upload) error) (*Client, *atomic.Int64) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	got := new(atomic.Int64)
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u := NewUpload(w, r)
		defer u.End()
		if err := do(u); err != nil {
			u.Refuse(err)
			return
		}
		WriteJSON(w, http.StatusOK, "done")
	})}
	go server.Serve(counting{listener, got})
	t.Cleanup(func() { server.Close() })
	return New(path), got
}

type counting struct {
	net.Listener
	got *atomic.Int64
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	return countingConn{conn, c.got}, err
}

type countingConn struct {
	net.Conn
	got *atomic.Int64
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.got.Add(int64(n))
	return n, err
}

func sendUpload(t *testing.T, c *Client, send func(*FrameWriter) error) (answer string, err error) {
	err = c.upload(t.Context(), call{route: "POST /upload"}, send, &answer)
	return answer, err
}

var errNo = refusal.New(refusal.Busy, "do that", "no room")

const much = 32 << 20

func sendMuch(f *FrameWriter) error {
	for range much / maxFrame {
		if _, err := f.Write(make([]byte, maxFrame)); err != nil {
			return err
		}
	}
	return f.End(much)
}

func TestAnUploadArrivesWhole(t *testing.T) {
	sum := int64(0)
	c, _ := uploads(t, func(u *Upload) error {
		frames, done := u.Frames(context.Background(), much)
		defer done()
		n, err := io.Copy(io.Discard, frames)
		sum = n
		return err
	})
	if answer, err := sendUpload(t, c, sendMuch); answer != "done" || err != nil || sum != much {
		t.Errorf("%q, %v, %d bytes", answer, err, sum)
	}
}

func TestARefusedUploadIsNotSent(t *testing.T) {
	c, got := uploads(t, func(*Upload) error { return errNo })
	if _, err := sendUpload(t, c, sendMuch); refusal.CodeOf(err) != refusal.Busy || refusal.From(err).Hint != "do that" {
		t.Error(err)
	}
	if got.Load() > 4096 {
		t.Errorf("%d bytes were sent to a daemon that refuses", got.Load())
	}
}

// Why an upload is refused in its middle reaches its sender, who is still sending.
func TestAnUploadRefusedInItsMiddleSaysWhy(t *testing.T) {
	for range 5 {
		c, _ := uploads(t, func(u *Upload) error {
			frames, done := u.Frames(context.Background(), much)
			defer done()
			_, _, err := frames.Next()
			return errors.Join(err, errNo)
		})
		if _, err := sendUpload(t, c, sendMuch); refusal.CodeOf(err) != refusal.Busy {
			t.Fatal(err)
		}
	}
}

// A sender that fails is told its own failure, and what it sent is not taken for whole.
func TestASenderThatFails(t *testing.T) {
	seen := make(chan error, 1)
	c, _ := uploads(t, func(u *Upload) error {
		frames, done := u.Frames(context.Background(), much)
		defer done()
		_, err := io.Copy(io.Discard, frames)
		seen <- err
		return err
	})
	_, err := sendUpload(t, c, func(f *FrameWriter) error {
		_, _ = f.Write(make([]byte, 100))
		return errNo
	})
	if !errors.Is(err, errNo) {
		t.Error(err)
	}
	if err := <-seen; refusal.CodeOf(err) != refusal.Failed {
		t.Errorf("the daemon took it for %v", err)
	}
}

// A sender who says nothing is not waited for, nor is anybody once the daemon ends.
func TestASilentSenderIsNotWaitedFor(t *testing.T) {
	for name, limit := range map[string]time.Duration{"silent": time.Minute, "ending": 20 * time.Millisecond} {
		c, _ := uploads(t, func(u *Upload) error {
			if name == "silent" {
				u.idle = 20 * time.Millisecond
			}
			ctx, cancel := context.WithTimeout(context.Background(), limit)
			defer cancel()
			frames, done := u.Frames(ctx, much)
			defer done()
			_, err := io.Copy(io.Discard, frames)
			return err
		})
		hold := make(chan struct{})
		t.Cleanup(func() { close(hold) })
		_, err := sendUpload(t, c, func(f *FrameWriter) error {
			_, _ = f.Write(bytes.Repeat([]byte{1}, 100))
			<-hold // as long as the test takes
			return nil
		})
		if want := map[string]refusal.Code{"silent": refusal.Failed, "ending": refusal.Unreachable}[name]; refusal.CodeOf(err) != want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A daemon that is killed in the middle of an upload is one that can't be reached, whichever side notices first.
func TestAnUploadToADaemonThatIsKilled(t *testing.T) {
	c, _ := uploads(t, func(u *Upload) error { return nil })
	for _, err := range []error{net.ErrClosed, io.ErrUnexpectedEOF, syscall.EPIPE} {
		err = c.failed(t.Context(), &url.Error{Op: "Post", URL: "x", Err: &net.OpError{Op: "write", Net: "unix", Err: err}})
		wantCode(t, err, refusal.Unreachable, "closed the connection")
	}
}

// keeping remembers the small buffers that a server reads into: those that it keeps for other connections.
type keeping struct {
	net.Listener
	mu    sync.Mutex
	seen  [][]byte
	ended sync.WaitGroup
}

func (k *keeping) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if err == nil {
		k.ended.Add(1)
	}
	return &keepingConn{Conn: conn, k: k, end: sync.OnceFunc(k.ended.Done)}, err
}

type keepingConn struct {
	net.Conn
	k   *keeping
	end func()
}

func (c *keepingConn) Close() error { defer c.end(); return c.Conn.Close() }

func (c *keepingConn) Read(p []byte) (int, error) {
	if len(p) <= 8<<10 {
		c.k.mu.Lock()
		c.k.seen = append(c.k.seen, p)
		c.k.mu.Unlock()
	}
	return c.Conn.Read(p)
}

// What was uploaded may be what an encrypted disk holds: no buffer of the server keeps any of it, however the upload ended.
func TestNothingOfAnUploadStays(t *testing.T) {
	secret := bytes.Repeat([]byte("known plaintext "), 4096)
	for name, end := range map[string]func(f *FrameWriter) error{
		"sent": func(f *FrameWriter) error { return f.End(int64(len(secret))) },
		"refused": func(f *FrameWriter) error {
			_, err := f.WriteAt(secret, 1<<50)
			return err
		},
		"broken off": func(*FrameWriter) error { return errNo },
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "s")
			listener, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			k := &keeping{Listener: listener}
			server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				u := NewUpload(w, r)
				defer u.End()
				frames, done := u.Frames(t.Context(), much)
				defer done()
				for {
					if _, _, err := frames.Next(); errors.Is(err, io.EOF) {
						break
					} else if err != nil {
						u.Refuse(err)
						return
					}
				}
				WriteJSON(w, http.StatusOK, "done")
			})}
			go server.Serve(k)
			defer server.Close()
			answer, err := sendUpload(t, New(path), func(f *FrameWriter) error {
				if _, err := f.Write(secret); err != nil {
					return err
				}
				return end(f)
			})
			if (answer == "done") != (name == "sent") || (err == nil) != (name == "sent") {
				t.Errorf("%q %v", answer, err)
			}
			k.ended.Wait()
			k.mu.Lock()
			defer k.mu.Unlock()
			for _, p := range k.seen {
				if bytes.Contains(p, secret[:32]) {
					t.Fatalf("a buffer of %d bytes keeps what was uploaded", len(p))
				}
			}
		})
	}
}
