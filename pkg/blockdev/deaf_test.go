package blockdev

import (
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/nbd/nbdtest"
)

// flushRequest is a whole one, with a cookie.
func flushRequest(cookie string) []byte {
	return []byte("\x25\x60\x95\x13\x00\x00\x00\x03" + cookie + strings.Repeat("\x00", 12))
}

func ask(t *testing.T, l *link, cookie string) {
	t.Helper()
	if _, err := syscall.Write(int(l.socket.Fd()), flushRequest(cookie)); err != nil {
		t.Fatal(err)
	}
	var first [1]byte // the answer is there, and stays
	if _, _, err := syscall.Recvfrom(int(l.socket.Fd()), first[:], syscall.MSG_PEEK); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, l *link, n int) {
	t.Helper()
	if got, err := syscall.Read(int(l.socket.Fd()), make([]byte, n)); got != n || err != nil {
		t.Fatal(got, err)
	}
}

// Where the kernel reads nothing of what is answered on a link, the one before it ends, and then the one before that, if need be. Links behind it are
// not touched.
func TestADeafLinkIsUnblocked(t *testing.T) {
	_, c := serve(t, "disk")
	d := &Device{config: c, links: []*link{opened(t, c), opened(t, c), opened(t, c), opened(t, c)}}
	dead := func(want ...*link) {
		t.Helper()
		if len(want) > 0 {
			if list, err := ended(want[:1], 10_000); len(list) == 0 || err != nil {
				t.Fatal("it is not dead:", err)
			}
		}
		if list, err := ended(d.links, 0); err != nil || !slices.Equal(list, want) {
			t.Fatal("dead:", list, err)
		}
	}
	look := func(n int) {
		for range n {
			d.hear()
		}
	}
	first, second := d.links[0], d.links[1]
	ask(t, d.links[2], "deafdeaf")
	look(deafLooks - 1)
	dead()
	look(1)
	dead(second)
	look(deafLooks - 2)
	dead(second)
	look(1)
	dead(first, second)
	look(3 * deafLooks) // none is left before it
	dead(first, second)
}

// What was asked on the link that ends is answered before.
func TestUnblockLosesNoRequest(t *testing.T) {
	let := make(chan struct{})
	var syncs atomic.Int32
	_, c := serveDevice(t, "disk", &nbdtest.Hooked{Full: nbdtest.NewMemory(1 << 20), Before: func(op nbdtest.Op, _, _ int64) error {
		if op == nbdtest.Sync && syncs.Add(1) == 2 {
			<-let
		}
		return nil
	}})
	before, deaf := opened(t, c), opened(t, c)
	d := &Device{config: c, links: []*link{before, deaf}}
	ask(t, deaf, "deafdeaf")
	if _, err := syscall.Write(int(before.socket.Fd()), flushRequest("answered")); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(10 * time.Second); syncs.Load() < 2 && time.Now().Before(end); {
		time.Sleep(time.Millisecond)
	}
	for range deafLooks {
		d.hear()
	}
	close(let)
	answer := make([]byte, 17)
	if _, err := syscall.Read(int(before.socket.Fd()), answer); err != nil || string(answer[8:16]) != "answered" {
		t.Errorf("%q, %v", answer, err)
	}
	if n, err := syscall.Read(int(before.socket.Fd()), answer); n != 0 || err != nil {
		t.Error("after the answer:", n, err)
	}
}

func TestALinkThatIsReadIsNotDeaf(t *testing.T) {
	_, c := serve(t, "disk")
	for what, between := range map[string]func(l *link){
		"read":                 func(l *link) { read(t, l, 16) },
		"another answer":       func(l *link) { ask(t, l, "another!"); read(t, l, 16) },
		"the middle of answer": func(l *link) { ask(t, l, "another!"); read(t, l, 8) },
	} {
		l := opened(t, c)
		d := &Device{config: c, links: []*link{opened(t, c), l}}
		d.hear()
		ask(t, l, "thefirst")
		for range deafLooks - 1 {
			d.hear()
		}
		between(l)
		d.hear()
		ask(t, l, "thelast!")
		for range 3 * deafLooks {
			d.hear()
		}
		if list, err := ended(d.links, 50); len(list) != 0 || err != nil {
			t.Error(what, "ended a link:", list, err)
		}
	}
}

// A device that is closed is not listened to any more.
func TestHearEnds(t *testing.T) {
	h := fixture(t, map[string]string{"run/x": ""})
	lock, err := h.lock("/dev/nbd0")
	if err != nil {
		t.Fatal(err)
	}
	d := &Device{lock: lock}
	if !d.hear() {
		t.Error("it ended before the device was closed")
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	if d.hear() {
		t.Error("it goes on without a device")
	}
}
