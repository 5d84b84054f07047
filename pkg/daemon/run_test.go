package daemon

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func client(o Options) *control.Client {
	return control.New(filepath.Join(o.Run, control.SocketControl))
}

// The main job over the real sockets: create, attach, write, stop under a connected client, start again, read.
func TestRunAndStop(t *testing.T) {
	o := options(t)
	stop := run(t, o)
	c := client(o)
	encrypted := true
	for _, step := range []func() error{
		func() error { _, err := c.GrantCreate(t.Context()); return err },
		func() error {
			_, err := c.DiskCreate(t.Context(), control.DiskCreate{Name: "vault", Size: 1 << 20, Encrypted: &encrypted})
			return err
		},
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	at, err := c.Attach(t.Context(), "vault", control.Attach{})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nbdclient.Dial(t.Context(), at.URI)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Disconnect()
	want := bytes.Repeat([]byte("kept "), 1000)
	if _, err := nc.WriteAt(want, 777); err != nil { // never flushed by the client: stopping does it
		t.Fatal(err)
	}
	if err := stop(); err != nil {
		t.Fatalf("stop: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(o.Run, "*.sock")); len(left) > 0 {
		t.Errorf("sockets are left: %v", left)
	}
	run(t, o)
	if at, err = c.Attach(t.Context(), "vault", control.Attach{ReadOnly: true}); err != nil || len(at.Warnings) > 0 {
		t.Fatalf("attach after a stop: %v, warnings %v", err, at.Warnings)
	}
	nc, err = nbdclient.Dial(t.Context(), "nbd+unix:///?socket="+filepath.Join(o.Run, control.SocketNBD))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Disconnect()
	got := make([]byte, len(want))
	if _, err := nc.ReadAt(got, 777); err != nil || !bytes.Equal(got, want) {
		t.Errorf("read: %v, equal %v", err, bytes.Equal(got, want))
	}
	if _, err := nc.WriteAt(want, 0); !errors.Is(err, syscall.EPERM) {
		t.Errorf("write to a read-only attachment: %v", err)
	}
	if _, err := c.Detach(t.Context(), "vault", false); err != nil {
		t.Fatal(err)
	}
	if _, err := nc.ReadAt(got, 0); !errors.Is(err, syscall.ESHUTDOWN) {
		t.Errorf("read after detach: %v", err)
	}
}

// Two daemons on one state directory, or on one run directory: the second is refused by name of the first.
func TestSecondDaemonIsRefused(t *testing.T) {
	o := options(t)
	run(t, o)
	other := options(t)
	sameState, sameRun := other, other
	sameState.State = o.State
	sameRun.Run = o.Run
	for name, second := range map[string]Options{"state": sameState, "run": sameRun} {
		err := Run(t.Context(), second)
		if refusal.CodeOf(err) != refusal.Busy || !strings.Contains(err.Error(), fmt.Sprintf("pid %d", os.Getpid())) {
			t.Errorf("same %s: %v", name, err)
		}
	}
	if _, err := client(o).Status(t.Context(), true); err != nil {
		t.Errorf("the first daemon: %v", err)
	}
}

func TestBadPlaces(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(*Options)
		code  refusal.Code
	}{
		"open state":    {func(o *Options) { _ = os.MkdirAll(o.State, 0o755); _ = os.Chmod(o.State, 0o755) }, refusal.Failed},
		"long run":      {func(o *Options) { o.Run = filepath.Join(o.Run, strings.Repeat("x", 100)) }, refusal.Usage},
		"key in state":  {func(o *Options) { o.RootKey = filepath.Join(o.State, "root.key") }, refusal.Locked},
		"other address": {func(o *Options) { o.Listen = []string{"nbd://0.0.0.0"} }, refusal.Usage},
		"file as socket": {func(o *Options) {
			_ = os.MkdirAll(o.Run, 0o755)
			_ = os.WriteFile(filepath.Join(o.Run, control.SocketNBD), nil, 0o600)
		}, refusal.Failed},
	} {
		t.Run(name, func(t *testing.T) {
			o := options(t)
			c.spoil(&o)
			o.Ready = func(string) { t.Error("it runs") }
			err := Run(t.Context(), o)
			if refusal.CodeOf(err) != c.code || refusal.From(err).Hint == "" {
				t.Errorf("code %d, want %d: %v", refusal.CodeOf(err), c.code, err)
			}
		})
	}
}

// --listen serves the same exports on another socket.
func TestExtraSocket(t *testing.T) {
	o := options(t)
	path := filepath.Join(filepath.Dir(o.State), "more.sock")
	o.Listen = []string{"nbd+unix:///?socket=" + path}
	run(t, o)
	c := client(o)
	if _, err := c.DiskCreate(t.Context(), control.DiskCreate{Name: "plain", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Attach(t.Context(), "plain", control.Attach{}); err != nil {
		t.Fatal(err)
	}
	nc, err := nbdclient.Dial(t.Context(), "nbd+unix:///plain?socket="+path)
	if err != nil {
		t.Fatal(err)
	}
	nc.Disconnect()
}

// The service manager hears that the daemon is ready, and that it stops (sd_notify(3)).
func TestServiceManagerIsTold(t *testing.T) {
	o := options(t)
	path := filepath.Join(filepath.Dir(o.State), "notify")
	manager, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer manager.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	hear := func(want string) {
		t.Helper()
		buf := make([]byte, 200)
		_ = manager.SetReadDeadline(time.Now().Add(time.Minute))
		n, err := manager.Read(buf)
		if got := string(buf[:n]); err != nil || got != want && !(strings.HasSuffix(want, "…") && strings.HasPrefix(got, strings.TrimSuffix(want, "…"))) {
			t.Errorf("heard %q (%v), want %q", got, err, want)
		}
	}
	stop := run(t, o)
	hear("READY=1")
	if _, err := client(o).RootLock(t.Context()); err != nil {
		t.Fatal(err)
	}
	hear("STATUS=the root key is locked: attached disks go on…")
	if _, err := client(o).RootUnlock(t.Context()); err != nil {
		t.Fatal(err)
	}
	hear("STATUS=")
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	hear("STOPPING=1")

	o, _ = lockedStore(t)
	run(t, o)
	hear("READY=1\nSTATUS=locked: `nbdcrypt root unlock` opens the store")
}
