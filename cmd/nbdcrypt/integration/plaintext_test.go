//go:build integration

package integration

import (
	"errors"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/keyscan"
)

// TestPlaintextLeavesWithTheDisk: what was written and read is in the daemon's memory while it is on its way, and after the detach
// nowhere, whether the client has gone before or is thrown out.
func TestPlaintextLeavesWithTheDisk(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, stays := range []bool{false, true} {
		d.create("vol", "8M", "--encrypted")
		c := dial(t, d.attach("vol"))
		text := noise("plaintext", 3<<20)
		write(t, c, text, 12345)
		expect(t, c, text, 12345)
		for at := range int64(100) {
			write(t, c, text[at*100:][:100], 5<<20+at*777)
			expect(t, c, text[at*100:][:100], 5<<20+at*777)
		}
		scanner := keyscan.New()
		scanner.Material("plaintext", text)
		if len(memory(t, d.pid()).leaks(scanner)) == 0 {
			t.Error("control: the plaintext is not found while the disk is attached")
		}
		if !stays {
			check(t, c.Disconnect())
		}
		d.do("detach", "vol")
		// A client that stays hears that the disk is gone, until its connection is ended a few seconds later.
		waitFor(t, "the connection does not end", func() bool { return !errors.Is(c.Flush(), syscall.ESHUTDOWN) })
		for i, l := range memory(t, d.pid()).leaks(scanner) {
			if i < 20 {
				t.Errorf("detached, the client stays: %v: %v: %s", stays, l.Hit, l.place)
			}
		}
		d.do("disk", "delete", "vol", "--yes")
	}
}
