package nbd_test

import (
	"runtime"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// TestNBD12_PayloadInFlightIsBounded: of many large reads only as many are in memory as 64 MiB hold.
func TestNBD12_PayloadInFlightIsBounded(t *testing.T) {
	const large, asked, fit = 30 << 20, 5, 2
	entered, release := make(chan struct{}, asked), make(chan struct{})
	dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(large), Before: func(op nbdtest.Op, _, n int64) error {
		if op == nbdtest.Read && n == large {
			entered <- struct{}{}
			<-release
		}
		return nil
	}}
	h := serve(t, nbdtest.NewExports(nbd.NewExport("vol", dev, nbd.Options{})))
	c, other := h.enter(t, "vol"), h.enter(t, "vol")
	for i := range uint64(asked) {
		c.send(request{command: cmdRead, cookie: i, length: large}.bytes())
	}
	for range fit {
		<-entered
	}
	for range 200 {
		other.lives()
	}
	if len(entered) != 0 {
		t.Error("more than 64 MiB are in flight")
	}
	close(release)
	for range asked {
		if _, errno := c.answered(); errno != ok {
			t.Fatal(errno)
		}
		c.read(large)
	}
}

func TestNBD12_AClaimedPayloadCostsNothing(t *testing.T) {
	e := disk("vol")
	h := serve(t, nbdtest.NewExports(nbd.NewExport("large", nbdtest.NewMemory(64<<20), nbd.Options{}), e))
	c := h.enter(t, "large")
	other := h.enter(t, "vol")
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	c.send(request{command: cmdWrite, length: 64 << 20}.bytes(1, 2, 3))
	c.nc.CloseWrite()
	c.closed()
	other.lives()
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 8<<20 {
		t.Errorf("%d bytes were allocated for three that came", used)
	}
}

func TestAClientThatCannotReadIsCutOff(t *testing.T) {
	e := disk("vol")
	h := serve(t, nbdtest.NewExports(e))
	c := h.enter(t, "vol")
	if err := c.nc.CloseRead(); err != nil {
		t.Fatal(err)
	}
	c.send(request{command: cmdFlush}.bytes())
	eventually(t, "the client is cut off", func() bool { return e.Clients() == 0 })
}
