package nbdclient

import (
	"syscall"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// maxPayload is what every server takes at once; longer reads and writes are several requests.
	maxPayload = 32 << 20
	// maxRange is a length that fits the request and is a multiple of every block size.
	maxRange = 1 << 30
)

// ReadAt fills p.
func (c *Client) ReadAt(p []byte, off int64) (int, error) {
	return c.pieces(p, off, func(p []byte, off uint64) error {
		return c.do(wire.Request{Type: wire.CmdRead, Offset: off, Length: uint64(len(p))}, nil, p)
	})
}

// WriteAt writes p.
func (c *Client) WriteAt(p []byte, off int64) (int, error) { return c.writeFlagged(p, off, 0) }

// WriteAtFUA writes p durably.
func (c *Client) WriteAtFUA(p []byte, off int64) (int, error) {
	return c.writeFlagged(p, off, wire.CmdFlagFUA)
}

func (c *Client) writeFlagged(p []byte, off int64, flags uint16) (int, error) {
	return c.pieces(p, off, func(p []byte, off uint64) error {
		return c.do(wire.Request{Type: wire.CmdWrite, Flags: flags, Offset: off, Length: uint64(len(p))}, p, nil)
	})
}

// pieces cuts p into requests that every server takes.
func (c *Client) pieces(p []byte, off int64, do func([]byte, uint64) error) (int, error) {
	if off < 0 {
		return 0, syscall.EINVAL
	}
	done := 0
	for {
		piece := p[done:min(len(p), done+maxPayload)]
		if err := do(piece, uint64(off)+uint64(done)); err != nil {
			return done, err
		}
		if done += len(piece); done == len(p) {
			return done, nil
		}
	}
}

// Flush makes every write that was answered durable.
func (c *Client) Flush() error { return c.do(wire.Request{Type: wire.CmdFlush}, nil, nil) }

// Trim gives up a range, which then reads as zeros.
func (c *Client) Trim(off, n int64) error { return c.span(wire.CmdTrim, 0, off, n) }

// Zero makes a range read as zeros; with noHole its space stays reserved.
func (c *Client) Zero(off, n int64, noHole bool) error {
	if noHole {
		return c.span(wire.CmdWriteZeroes, wire.CmdFlagNoHole, off, n)
	}
	return c.span(wire.CmdWriteZeroes, 0, off, n)
}

// span cuts a range into requests whose length fits.
func (c *Client) span(command, flags uint16, off, n int64) error {
	if off < 0 || n < 0 {
		return syscall.EINVAL
	}
	for {
		step := min(n, maxRange)
		r := wire.Request{Type: command, Flags: flags, Offset: uint64(off), Length: uint64(step)}
		if err := c.do(r, nil, nil); err != nil {
			return err
		}
		off, n = off+step, n-step
		if n == 0 {
			return nil
		}
	}
}
