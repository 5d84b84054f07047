package nbd_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// longAgo is how long requests have to wait so that the server looks whether their client is still there.
const longAgo = 700 * time.Millisecond

// What waits before a worker while its client hangs up is not written when its time comes: the client has sent it again elsewhere, and something
// newer after that. It would do that to the block of the first write, too, which a worker is at: that one is written.
func TestStaleWritesAreNotWritten(t *testing.T) {
	entered, release := make(chan struct{}, 1000), make(chan struct{})
	memory := nbdtest.NewMemory(diskSize)
	dev := &nbdtest.Hooked{Full: memory, Before: func(op nbdtest.Op, off, _ int64) error {
		if op == nbdtest.Write && off < nbd.MaxWorkers*512 {
			entered <- struct{}{}
			<-release
		}
		return nil
	}}
	e := nbd.NewExport("vol", waiting{dev, dev, dev}, nbd.Options{})
	h := serve(t, nbdtest.NewExports(e))
	for _, leaves := range []bool{true, false} {
		c := h.enter(t, "vol")
		for i := range uint64(nbd.MaxWorkers + 8) {
			c.send(request{command: cmdWrite, cookie: i, offset: i * 512, length: 512}.bytes(bytes.Repeat([]byte{7}, 512)...))
		}
		for range nbd.MaxWorkers {
			<-entered
		}
		if leaves {
			c.nc.Close()
		}
		time.Sleep(longAgo)
		close(release)
		if !leaves {
			for range nbd.MaxWorkers + 8 {
				c.read(16)
			}
			c.nc.Close()
		}
		eventually(t, "the client is gone", func() bool { return e.Clients() == 0 })
		got := make([]byte, (nbd.MaxWorkers+8)*512)
		if _, err := memory.ReadAt(got, 0); err != nil {
			t.Fatal(err)
		}
		n := bytes.Count(got, []byte{7})
		if want := map[bool]int{true: nbd.MaxWorkers * 512, false: (nbd.MaxWorkers + 8) * 512}[leaves]; n != want {
			t.Errorf("the client leaves: %v; %d bytes were written, want %d", leaves, n, want)
		}
		release = make(chan struct{})
	}
}

// A write whose client hung up while nobody read it is not written either.
func TestStaleInputIsNotRead(t *testing.T) {
	entered, release := make(chan struct{}, 1), make(chan struct{})
	memory := nbdtest.NewMemory(diskSize)
	dev := &nbdtest.Hooked{Full: memory, Nowait: func(int64, int64) error { return nil }, Before: func(op nbdtest.Op, _, n int64) error {
		if op == nbdtest.Write && n == 512 {
			entered <- struct{}{}
			<-release
		}
		return nil
	}}
	e := nbd.NewExport("vol", dev, nbd.Options{})
	c := serve(t, nbdtest.NewExports(e)).enter(t, "vol")
	c.send(request{command: cmdWrite, length: 512}.bytes(make([]byte, 512)...))
	<-entered // by the loop, which reads nothing meanwhile
	c.send(request{command: cmdWrite, offset: 4096, length: 4096}.bytes(bytes.Repeat([]byte{7}, 4096)...))
	c.nc.Close()
	time.Sleep(longAgo)
	close(release)
	eventually(t, "the client is gone", func() bool { return e.Clients() == 0 })
	got := make([]byte, 4096)
	if _, err := memory.ReadAt(got, 4096); err != nil || !bytes.Equal(got, make([]byte, 4096)) {
		t.Error("it was written", err)
	}
}

// HangUp answers what was read, and nobody hears of an error; nobody comes in after it. The device is free to be drained then.
func TestHangUp(t *testing.T) {
	h, e, entered, release, _ := holding(t)
	busy, idle := h.enter(t, "vol"), h.enter(t, "vol")
	busy.send(request{command: cmdWrite, cookie: 1, length: 512}.bytes(make([]byte, 512)...))
	<-entered
	hung := make(chan error, 1)
	go func() { hung <- e.HangUp(t.Context()) }()
	idle.closed()
	select {
	case err := <-hung:
		t.Fatal("it did not wait for a request in work", err)
	default:
	}
	h.connect(t, fixedFlags).want(optGo, ask("vol"), repErrShutdown)
	close(release)
	busy.expect(1, ok)
	busy.closed()
	if err := errors.Join(<-hung, e.HangUp(t.Context()), e.Drain(t.Context())); err != nil || e.Clients() != 0 {
		t.Error(err, e.Clients())
	}
}
