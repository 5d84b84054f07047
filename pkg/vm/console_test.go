package vm

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// screenOf is a console without a QEMU, in a directory whose path is longer than a socket's may be.
func screenOf(t *testing.T) (c *console, guest net.Conn, path string) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 50))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	d, err := lock(dir, "web1")
	if err != nil {
		t.Fatal(err)
	}
	if c, err = openConsole(d); err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	c.watch(ours)
	t.Cleanup(func() { _ = theirs.Close(); c.end(time.Minute); d.remove() })
	return c, theirs, filepath.Join(dir, consoleSocket)
}

func says(t *testing.T, guest net.Conn, p []byte) {
	t.Helper()
	if _, err := guest.Write(p); err != nil {
		t.Fatal(err)
	}
}

// What is kept is the end of what was said, whoever looks sees all of that and what comes; the log ends where it was opened.
func TestConsoleKeeps(t *testing.T) {
	t.Parallel()
	c, guest, path := screenOf(t)
	var all bytes.Buffer
	for n := 0; all.Len() < 3*kept+12345; n++ {
		line := strings.Repeat(string(rune('a'+n%26)), n%5000) + "\n"
		all.WriteString(line)
		says(t, guest, []byte(line))
	}
	until(t, "all is kept", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.total == int64(all.Len()) })
	var log bytes.Buffer
	if err := Console(t.Context(), path, nil, &log, true); err != nil || !bytes.Equal(log.Bytes(), all.Bytes()[all.Len()-kept:]) {
		t.Errorf("kept are %d bytes, %v", log.Len(), err)
	}
	first, second := look(t, path), look(t, path)
	for _, s := range []*screen{first, second} {
		until(t, "it sees all that was kept", func() bool { return len(s.String()) == kept })
	}
	says(t, guest, []byte("news\n"))
	first.sees("news\n")
	second.sees("news\n")
	// Both may type.
	for _, s := range []*screen{first, second} {
		go func() { _, _ = s.in.Write([]byte("x")) }()
		if _, err := io.ReadFull(guest, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	// At the end of its input a look goes on; who leaves, leaves.
	_ = first.in.Close()
	_ = second.in.CloseWithError(ErrLeave)
	if err := <-second.done; err != nil {
		t.Error(err)
	}
	says(t, guest, []byte("more\n"))
	first.sees("more\n")
	_ = guest.Close()
	c.end(time.Minute)
	if err := <-first.done; err != nil {
		t.Error(err)
	}
}

// Who does not read holds up nobody, and is cut off.
func TestConsoleSlowReader(t *testing.T) {
	t.Parallel()
	_, guest, path := screenOf(t)
	slow, err := dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	quick := look(t, path)
	for n := range 100 {
		says(t, guest, bytes.Repeat([]byte("0123456789abcde\n"), kept/16/10))
		until(t, "who reads sees it", func() bool { return len(quick.String()) == (n+1)*(kept/16/10*16) })
	}
	says(t, guest, []byte("end\n"))
	quick.sees("end\n")
	got, _ := io.ReadAll(slow)
	if bytes.Contains(got, []byte("end\n")) || len(got) > 4*kept {
		t.Errorf("%d bytes went to who did not read", len(got))
	}
}

// Who does not type on holds up nobody; too many are turned away with a word; places become free.
func TestConsoleManyReaders(t *testing.T) {
	t.Parallel()
	c, _, path := screenOf(t)
	readers := func() int { c.mu.Lock(); defer c.mu.Unlock(); return len(c.readers) }
	var all []net.Conn
	for range maxReaders {
		conn, err := dial(path)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, conn)
	}
	until(t, "all are there", func() bool { return readers() == maxReaders })
	var out strings.Builder
	if err := Console(t.Context(), path, nil, &out, false); err != nil || !strings.Contains(out.String(), "too many look at this console") {
		t.Errorf("%v, %q", err, &out)
	}
	for _, conn := range all {
		_ = conn.Close()
	}
	until(t, "all have left", func() bool { return readers() == 0 })
}

// Who types on and on to a guest that hears nothing, and leaves, takes no place for good.
func TestConsoleDeafGuest(t *testing.T) {
	t.Parallel()
	c, _, path := screenOf(t)
	c.mu.Lock()
	c.deaf = 10 * time.Millisecond
	c.mu.Unlock()
	conn, err := dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 4<<20)); err == nil {
		t.Error("the guest heard all of it")
	}
	until(t, "it has left", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.readers) == 0 })
}

type broken struct{}

func (broken) Write([]byte) (int, error) { return 0, io.ErrClosedPipe }

// A Console ends with its context, and with an output that is broken; a console that is another's, or not there, is refused.
func TestConsoleEnds(t *testing.T) {
	t.Parallel()
	_, guest, path := screenOf(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(time.Millisecond, cancel)
	if err := Console(ctx, path, nil, io.Discard, false); err != nil {
		t.Error(err)
	}
	says(t, guest, []byte("words"))
	if err := Console(t.Context(), path, nil, broken{}, false); !errors.Is(err, io.ErrClosedPipe) {
		t.Error(err)
	}
	if err := Console(t.Context(), t.TempDir()+"/none", nil, io.Discard, false); refusal.CodeOf(err) != refusal.Busy {
		t.Error(err)
	}
	if err := noConsole(path, os.ErrPermission); refusal.CodeOf(err) != refusal.Denied {
		t.Error(err)
	}
}
