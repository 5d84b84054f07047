package nbd_test

import (
	"context"
	"io"
	"log/slog"
	"net"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// Small replies must not wait for the acknowledgement of those before.
func TestNBD29_NoDelayOnTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	noDelay := make(chan int, 1)
	peer := func(nc net.Conn) (nbd.Peer, error) {
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			return nbd.Peer{}, err
		}
		err = raw.Control(func(fd uintptr) {
			on, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
			noDelay <- on
		})
		return nbd.Peer{UID: 1}, err
	}
	server := nbd.NewServer(nbdtest.NewExports(disk("vol")), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l, nbd.Entrance{Peer: peer}) }()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(nc, make([]byte, 18)); err != nil || <-noDelay == 0 {
		t.Errorf("TCP_NODELAY is not set, or %v", err)
	}
	nc.Close()
	if err := server.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
