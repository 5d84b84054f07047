package nbdclient_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"net"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/nbd/nbdtest"
)

// start serves one export and returns its URI.
func start(t *testing.T, export *nbd.Export) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := nbd.NewServer(nbdtest.NewExports(export), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l, nbd.Entrance{}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return "nbd+unix:///" + export.Name() + "?socket=" + path
}

func dial(t *testing.T, uri string) *nbdclient.Client {
	t.Helper()
	c, err := nbdclient.Dial(t.Context(), uri)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func TestRoundTrip(t *testing.T) {
	dev := nbdtest.NewMemory(80 << 20)
	c := dial(t, start(t, nbd.NewExport("project/disk", dev, nbd.Options{})))
	if c.Size() != 80<<20 || c.Info().Minimum != 512 || c.Info().Maximum != 32<<20 {
		t.Fatalf("told %+v", c.Info())
	}
	// Longer than one request may be, and not a multiple of anything.
	want := make([]byte, 70<<20+13)
	rand.NewChaCha8([32]byte{1}).Read(want)
	if n, err := c.WriteAt(want, 77); n != len(want) || err != nil {
		t.Fatal(n, err)
	}
	if n, err := c.WriteAtFUA(want[:100], 77); n != 100 || err != nil {
		t.Fatal(n, err)
	}
	got := make([]byte, len(want))
	if n, err := c.ReadAt(got, 77); n != len(got) || err != nil || !bytes.Equal(got, want) {
		t.Fatal(n, err, bytes.Equal(got, want))
	}
	if err := errors.Join(c.Flush(), c.Trim(77, 1000), c.Zero(2077, 1000, true), c.Zero(4077, 0, false)); err != nil {
		t.Fatal(err)
	}
	clear(want[:1000])
	clear(want[2000:3000])
	if _, err := c.ReadAt(got, 77); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err, "trimmed and zeroed ranges differ")
	}
}

func TestErrorsAreErrno(t *testing.T) {
	c := dial(t, start(t, nbd.NewExport("ro", nbdtest.NewMemory(4096), nbd.Options{ReadOnly: true})))
	if _, err := c.WriteAt([]byte("x"), 0); !errors.Is(err, syscall.EPERM) {
		t.Error("write to a read-only export:", err)
	}
	if _, err := c.ReadAt(make([]byte, 10), 4090); !errors.Is(err, syscall.EINVAL) {
		t.Error("read past the end:", err)
	}
	if _, err := c.ReadAt(make([]byte, 10), -1); !errors.Is(err, syscall.EINVAL) {
		t.Error("read at a negative offset:", err)
	}
	if err := c.Trim(0, -1); !errors.Is(err, syscall.EINVAL) {
		t.Error("trim of a negative length:", err)
	}
	if _, err := c.ReadAt(make([]byte, 4096), 0); err != nil {
		t.Error("the connection did not live on:", err)
	}
}

func TestManyGoroutines(t *testing.T) {
	const each, part = 16, 1 << 16
	c := dial(t, start(t, nbd.NewExport("vol", nbdtest.NewMemory(each*part), nbd.Options{})))
	var wg sync.WaitGroup
	for i := range each {
		wg.Go(func() {
			want, got := bytes.Repeat([]byte{byte(i + 1)}, part), make([]byte, part)
			for range 20 {
				if _, err := c.WriteAt(want, int64(i*part)); err != nil {
					t.Error(err)
				}
				if _, err := c.ReadAt(got, int64(i*part)); err != nil || !bytes.Equal(got, want) {
					t.Error("read back differs", err)
				}
			}
		})
	}
	wg.Wait()
}

func TestRefusals(t *testing.T) {
	export := nbd.NewExport("vol", nbdtest.NewMemory(4096), nbd.Options{})
	uri := start(t, export)
	_, err := nbdclient.Dial(t.Context(), uri[:len("nbd+unix:///")]+"other"+uri[len("nbd+unix:///vol"):])
	var refused *nbdclient.Refused
	if !errors.As(err, &refused) || !errors.Is(err, syscall.ENOENT) || refused.Message == "" {
		t.Error("unknown export:", err)
	}
	c := dial(t, uri)
	if err := export.Drain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); !errors.Is(err, syscall.ESHUTDOWN) {
		t.Error("after Drain:", err)
	}
	if _, err := nbdclient.Dial(t.Context(), uri); !errors.Is(err, syscall.ESHUTDOWN) {
		t.Error("dial after Drain:", err)
	}
}

func TestCallsAfterDisconnect(t *testing.T) {
	c := dial(t, start(t, nbd.NewExport("vol", nbdtest.NewMemory(4096), nbd.Options{})))
	if err := c.Disconnect(); err != nil {
		t.Fatal(err)
	}
	if err := c.Flush(); !errors.Is(err, nbdclient.ErrClosed) {
		t.Error(err)
	}
}

func TestDialObeysItsContext(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mute")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := nbdclient.Dial(ctx, "nbd+unix:///?socket="+path); err == nil {
		t.Error("a server that says nothing was believed")
	}
}
