package nbd_test

import (
	"bytes"
	"context"
	"net"
	"testing"

	"github.com/pojntfx/go-nbd/pkg/backend"
	gonbd "github.com/pojntfx/go-nbd/pkg/server"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/nbd/nbdtest"
)

// Every Device is a go-nbd backend: its server can serve an encrypted disk, too.
var (
	_ backend.Backend = nbd.Device(nil)
	_ nbd.Device      = backend.Backend(nil)
)

func TestGoNBDsServerServesADevice(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	dev := nbdtest.NewMemory(diskSize)
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			gonbd.Handle(conn, []*gonbd.Export{{Name: "vol", Backend: dev}}, nil)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := nbdclient.Dial(ctx, "nbd+unix:///vol?socket="+path)
	if err != nil {
		t.Fatal(err)
	}
	want, got := pattern(5000, 1), make([]byte, 5000)
	if _, err := c.WriteAt(want, 77); err != nil {
		t.Fatal(err)
	}
	if _, err := dev.ReadAt(got, 77); err != nil || !bytes.Equal(got, want) {
		t.Error("the device does not hold what was written", err)
	}
	if err := c.Disconnect(); err != nil {
		t.Error(err)
	}
}
