package daemon

import "nbdcrypt/pkg/control"

// slotToken makes a slot that a key on a token opens.
func (d *Daemon) slotToken(c *call) (any, error) {
	var ask control.SlotTokenAdd
	if err := control.ReadJSON(c.http, &ask); err != nil {
		return nil, err
	}
	c.about = ask.Name
	ctx, cancel := d.untilStop(c.ctx)
	defer cancel()
	slot, err := d.root.AddToken(ctx, ask.Name, ask.Token)
	return slotView(slot), err
}
