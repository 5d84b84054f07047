package volume

import "nbdcrypt/pkg/refusal"

// may refuses to go on from an attachment where the disk may hold something else than that one left: whoever has a file system of it
// mounted would go on over other bytes. left is the attachment that is to be told of, nil where nothing is lost. Nil goes on from none.
func (c *Continues) may(d diskRecord, left *attachRecord) error {
	const next = "unmount it and end its device; then attach it again, and check its file system"
	switch {
	case c == nil:
		return nil
	case c.Disk != d.ID:
		return refusal.New(refusal.Damaged, next, "disk %s is another one than before: it was deleted and made anew", d.Name)
	case c.Epoch != d.Epoch:
		return refusal.New(refusal.Damaged, next, "disk %s was attached by somebody else, or rolled back, meanwhile", d.Name)
	case left != nil:
		return refusal.New(refusal.Damaged, next, "answered writes of disk %s may be lost: %s", d.Name, left.warning())
	}
	return nil
}

// since is where the disk's last attachment, nil for none, leads who goes on: to that one, where it was made for the same in vain.
func (c *Continues) since(last *attachRecord) *Continues {
	if c == nil || last == nil || c.Run == "" || last.Run != c.Run || c.Epoch < last.From || c.Epoch > last.Epoch {
		return c
	}
	return &Continues{Disk: c.Disk, Epoch: last.Epoch}
}

// mayJoin is may for a shared disk that is attached already: it may have been by another that went on from the same.
func (c *Continues) mayJoin(d diskRecord, a *Attachment) error {
	if c != nil && c.Epoch == a.record.Epoch-1 && !a.Unclean {
		d.Epoch = c.Epoch
	}
	return c.may(d, nil)
}
