package volume

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/xts"
)

// Ciphertext is a disk on its way out: all that a client would read of it, under one key, whatever stack it lies in. The key is drawn
// for this once, so that no two histories are ever written under the key of a layer. Whoever gets one closes it.
type Ciphertext struct {
	Disk       string
	Size       int64
	SectorSize int
	Key        EscrowKey

	project string
	cipher  heldCipher
	source  *Stack
	done    func()
}

// pieceOut is how much is encrypted at a time.
const pieceOut = 1 << 20

// Ciphertext opens a disk for that; until it is closed nothing else is done with the disk. released is called before the key is given out.
func (s *Service) Ciphertext(ctx context.Context, project, ref string, released func(*keystore.KeyVersionRef) error) (c *Ciphertext, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return nil, err
	}
	if !d.Encrypted {
		return nil, refusal.New(refusal.Failed, "attach it read-only, and copy it with nbdcopy", "disk %s is plain and has no ciphertext", d.Name)
	}
	if d, err = s.claimNow(ctx, project, d.ID.String(), toExport); err != nil {
		return nil, err
	}
	c = &Ciphertext{Disk: d.Name, project: d.Project, Size: d.Size, SectorSize: d.SectorSize, done: func() { s.release(d) }}
	if err = s.openCiphertext(ctx, d, c); err == nil {
		err = released(c.source.Key)
	}
	if err != nil {
		return nil, errors.Join(explain(d.Name, err), c.Close())
	}
	return c, nil
}

func (s *Service) openCiphertext(ctx context.Context, d diskRecord, c *Ciphertext) error {
	s.tree.RLock()
	defer s.tree.RUnlock()
	layers, err := s.stack(ctx, d)
	if err != nil {
		return err
	}
	left, err := s.takeOver(ctx, d)
	if err != nil {
		return err
	}
	c.source, err = s.openStack(ctx, holder(d), d.Project, d.label(), layers, d.Size, stackOptions{ReadOnly: true, Unclean: left != nil})
	if err != nil {
		return err
	}
	return c.draw()
}

// draw makes the key that goes out, and its schedule.
func (c *Ciphertext) draw() (err error) {
	id := uuid.New()
	if c.Key.Key, err = keystore.DrawDEK(id.String()); err != nil {
		return keyMemory(err)
	}
	c.Key.Layer = id.String()
	c.cipher.layer = id
	if c.cipher.memory, err = secret.New(xts.Size, secret.Purpose{Kind: "dek", ID: id.String(), For: "exporting disk " + c.project + "/" + c.Disk}); err != nil {
		return keyMemory(err)
	}
	secret.Do(func() { c.cipher.cipher, err = xts.New(c.cipher.memory.Bytes(), c.Key.Key.Bytes()) })
	return err
}

// Write writes the ciphertext, from beginning to end. Holes too: zeros under this key look like everything else.
func (c *Ciphertext) Write(ctx context.Context, w io.Writer) error {
	plain, sealed := make([]byte, pieceOut), make([]byte, pieceOut)
	defer clear(plain)
	for off := int64(0); off < c.Size; off += pieceOut {
		if err := ctx.Err(); err != nil {
			return fmt.Errorf("volume: exporting disk %s: %w", c.Disk, err)
		}
		n := min(pieceOut, c.Size-off)
		if _, err := c.source.Device.ReadAt(plain[:n], off); err != nil {
			return explain(c.Disk, err)
		}
		c.cipher.cipher.Encrypt(sealed[:n], plain[:n], c.SectorSize, uint64(off)/512)
		if _, err := w.Write(sealed[:n]); err != nil {
			return fmt.Errorf("volume: exporting disk %s: %w", c.Disk, err)
		}
	}
	return nil
}

// Close wipes the keys and lets go of the disk.
func (c *Ciphertext) Close() (err error) {
	if c.cipher.cipher != nil {
		c.cipher.cipher.Wipe()
	}
	for _, k := range []*secret.Key{c.cipher.memory, c.Key.Key} {
		if k != nil {
			k.Destroy()
		}
	}
	if c.source != nil {
		err = c.source.close(nil)
	}
	c.done()
	return err
}
