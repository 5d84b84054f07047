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

// tcpHouse serves a disk on TCP, to user 1.
func tcpHouse(t *testing.T, e nbd.Entrance) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if e.Peer == nil {
		e.Peer = func(net.Conn) (nbd.Peer, error) { return nbd.Peer{UID: 1}, nil }
	}
	server := nbd.NewServer(nbdtest.NewExports(disk("vol")), slog.New(slog.DiscardHandler))
	served := make(chan error, 1)
	go func() { served <- server.Serve(context.Background(), l, e) }()
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return l.Addr().String()
}

// What a client says after DISC is ignored, and must not cost it the answers: TCP would reset the connection.
func TestNBD24_WhatFollowsDiscCostsNoAnswers(t *testing.T) {
	at := tcpHouse(t, nbd.Entrance{})
	const reads = 8
	for range 20 {
		nc, err := net.Dial("tcp", at)
		if err != nil {
			t.Fatal(err)
		}
		nc.SetDeadline(in(patience))
		said := joined(clientFlags(fixedFlags), optionBytes(optGo, ask("vol")))
		for i := range uint64(reads) {
			said = append(said, request{command: cmdRead, cookie: i, length: 256 << 10}.bytes()...)
		}
		said = append(said, request{command: cmdDisc}.bytes()...)
		if _, err := nc.Write(append(said, make([]byte, 64<<10)...)); err != nil {
			t.Fatal(err)
		}
		n, err := io.Copy(io.Discard, nc)
		if want := int64(18 + 20 + 12 + 20 + reads*(16+256<<10)); err != nil || n != want {
			t.Fatalf("%d bytes, not %d: %v", n, want, err)
		}
		nc.Close()
	}
}

// Small replies must not wait for the acknowledgement of those before.
func TestNBD29_NoDelayOnTCP(t *testing.T) {
	noDelay := make(chan int, 1)
	at := tcpHouse(t, nbd.Entrance{Peer: func(nc net.Conn) (nbd.Peer, error) {
		raw, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			return nbd.Peer{}, err
		}
		err = raw.Control(func(fd uintptr) {
			on, _ := syscall.GetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_NODELAY)
			noDelay <- on
		})
		return nbd.Peer{UID: 1}, err
	}})
	nc, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := io.ReadFull(nc, make([]byte, 18)); err != nil || <-noDelay == 0 {
		t.Errorf("TCP_NODELAY is not set, or %v", err)
	}
}
