package blockdev

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
	"nbdcrypt/pkg/refusal"
)

// serve serves an export of 1 MiB and returns its socket.
func serve(t *testing.T, name string) (*nbd.Export, Config) {
	t.Helper()
	return serveDevice(t, name, nbdtest.NewMemory(1<<20))
}

func serveDevice(t *testing.T, name string, device nbd.Device) (*nbd.Export, Config) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	e := nbd.NewExport(name, device, nbd.Options{})
	server := nbd.NewServer(nbdtest.NewExports(e), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l, nbd.Entrance{}) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := errors.Join(server.Shutdown(ctx), <-served); err != nil {
			t.Error(err)
		}
	})
	return e, Config{Socket: path, Export: name, Path: "/dev/nbd0", Connections: 1, BlockSize: 512, Identifier: "nbdcrypt:x"}
}

func opened(t *testing.T, c Config) *link {
	t.Helper()
	l, err := open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.socket.Close() })
	return l
}

// A link is at the point where requests begin, knows who is at its other end, and tells when that has gone; an answer in between is the
// kernel's, and wakes nobody.
func TestLink(t *testing.T) {
	e, c := serve(t, "project/disk")
	l, other := opened(t, c), opened(t, c)
	if l.info.Size != 1<<20 || l.owner != uint32(os.Geteuid()) {
		t.Errorf("%+v", l)
	}
	if is, err := l.taken(); is || err != nil {
		t.Error("the kernel did not take it:", is, err)
	}
	const flush = "\x25\x60\x95\x13\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
	if _, err := syscall.Write(int(l.socket.Fd()), []byte(flush)); err != nil {
		t.Fatal(err)
	}
	if list, err := ended([]*link{l, other}, 50); len(list) != 0 || err != nil {
		t.Error("none has ended:", list, err)
	}
	answer := make([]byte, 17)
	if n, err := syscall.Read(int(l.socket.Fd()), answer); n != 16 || err != nil {
		t.Error("no answer to a flush is left to be read:", n, err)
	}
	other.socket.Close()
	e.Close()
	if list, err := ended([]*link{l}, 10_000); len(list) != 1 || err != nil {
		t.Error("it has ended:", list, err)
	}
}

func TestOpenFails(t *testing.T) {
	_, c := serve(t, "disk")
	other := c
	other.Export = "other"
	if _, err := open(t.Context(), other); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	c.Socket += "x"
	if _, err := open(t.Context(), c); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	l, err := net.Listen("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := open(ctx, c); err == nil {
		t.Error("a server that says nothing was believed")
	}
}

// What is served now has to be what the device stands for.
func TestLike(t *testing.T) {
	_, c := serve(t, "disk")
	l := opened(t, c)
	for what, as := range map[string]struct {
		size  int64
		flags uint16
		owner uint32
		code  refusal.Code
	}{
		"the same":        {1 << 20, l.info.Flags, l.owner, refusal.OK},
		"grown":           {1 << 19, l.info.Flags, l.owner, refusal.OK},
		"shrunk":          {1 << 21, l.info.Flags, l.owner, refusal.Failed},
		"other flags":     {1 << 20, l.info.Flags ^ 2, l.owner, refusal.Failed},
		"somebody else's": {1 << 20, l.info.Flags, l.owner + 1, refusal.Denied},
	} {
		d := &Device{config: c, size: as.size, flags: as.flags, owner: as.owner}
		if err := d.like(l); refusal.CodeOf(err) != as.code {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func TestFits(t *testing.T) {
	for what, d := range map[string]*Device{
		"several of one": {size: 4096, config: Config{Connections: 2, BlockSize: 512}},
		"empty":          {config: Config{Connections: 1, BlockSize: 512}},
		"half a block":   {size: 4096 + 512, config: Config{Connections: 1, BlockSize: 4096}},
	} {
		if err := d.fits(); err == nil {
			t.Errorf("%s: it fits", what)
		}
	}
	if err := (&Device{size: 8192, flags: 1 << 8, config: Config{Connections: 4, BlockSize: 4096}}).fits(); err != nil {
		t.Error(err)
	}
}

// Links that die are told once, a device that goes, or is somebody else's by now, ends it.
func TestWatch(t *testing.T) {
	h := fixture(t, map[string]string{"sys/block/nbd0/pid": "1\n", "sys/block/nbd0/backend": "nbdcrypt:x\n"})
	e, c := serve(t, "disk")
	d := &Device{config: c, links: []*link{opened(t, c), opened(t, c)}}
	events := d.Watch(t.Context())
	next := func() Event {
		t.Helper()
		select {
		case event := <-events:
			return event
		case <-time.After(10 * time.Second):
			t.Fatal("no event")
			return 0
		}
	}
	e.Close()
	if event := next(); event != Dead {
		t.Error(event)
	}
	h.write(t, "sys/block/nbd0/backend", "nbdcrypt:y\n")
	for event := next(); event != Gone; event = next() { // the other link's end may be told by itself
		if event != Dead {
			t.Fatal(event)
		}
	}
	if event, more := <-events; more {
		t.Error("after its end:", event)
	}
}

// A link that is dead is not replaced on a device that is somebody else's by now.
func TestReconnectLeavesOthersAlone(t *testing.T) {
	fixture(t, map[string]string{"sys/block/nbd0/pid": "1\n", "sys/block/nbd0/backend": "nbdcrypt:y\n"})
	_, c := serve(t, "disk")
	l := opened(t, c)
	d := &Device{config: c, size: l.info.Size, flags: l.info.Flags, owner: l.owner, links: []*link{l}}
	if err := d.Reconnect(t.Context()); err != nil {
		t.Error("none is dead:", err)
	}
	if err := syscall.Shutdown(int(l.socket.Fd()), syscall.SHUT_RDWR); err != nil {
		t.Fatal(err)
	}
	if err := d.Reconnect(t.Context()); !errors.Is(err, ErrDisconnected) {
		t.Error(err)
	}
	if d.links[0] != l {
		t.Error("the link was replaced")
	}
}
