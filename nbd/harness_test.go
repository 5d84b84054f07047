package nbd_test

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
)

// patience is how long a test waits for what must happen.
const patience = 20 * time.Second

// house is a server under test.
type house struct {
	server *nbd.Server
	path   string
}

// serve runs a server on a unix socket for one test, and at its end shuts it down and looks for goroutines that
// were left behind. So there is one server at a time: a test that wants several has subtests.
func serve(t testing.TB, exports nbd.Exports) *house {
	t.Helper()
	return serveWith(t, nbd.NewServer(exports, slog.New(slog.DiscardHandler)))
}

func serveWith(t testing.TB, server *nbd.Server) *house {
	t.Helper()
	return serveBy(t, server, nbd.Entrance{})
}

func serveBy(t testing.TB, server *nbd.Server, e nbd.Entrance) *house {
	t.Helper()
	h := &house{server: server, path: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l, e) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
		eventually(t, "the server's goroutines end", func() bool { return !running("nbdcrypt/nbd.(*") })
	})
	return h
}

// running tells whether a goroutine runs code of that name.
func running(name string) bool {
	buf := make([]byte, 1<<20)
	return strings.Contains(string(buf[:runtime.Stack(buf, true)]), name)
}

// eventually waits for a condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !holds(); runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// pattern is n bytes that differ by place and seed.
func pattern(n int, seed uint64) []byte {
	b := make([]byte, n+8)
	for i := 0; i < n; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], (uint64(i)+seed)*0x9e3779b97f4a7c15)
	}
	return b[:n]
}
