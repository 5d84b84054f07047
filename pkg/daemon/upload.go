package daemon

import "nbdcrypt/pkg/control"

// frames reads what is uploaded with a call, until the daemon begins to stop. Done ends it, and wipes what was read last.
func (d *Daemon) frames(c *call, limit int64) (frames *control.FrameReader, done func()) {
	ctx, cancel := d.untilStop(c.ctx)
	frames, end := c.upload.Frames(ctx, limit)
	return frames, func() { end(); cancel() }
}
