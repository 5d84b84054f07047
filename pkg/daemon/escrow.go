package daemon

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/volume"
)

// diskEscrow gives out the keys of a disk. The answer is written in key memory and leaves the process from there, so
// that no copy stays behind; from then on the keys are the caller's to keep.
func (d *Daemon) diskEscrow(c *call) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it, and keep what is printed as safe as the disk",
			"the keys of %s will be printed in clear, and who has them can read it for ever", nameOf(v))
	}
	sector, keys, err := d.volumes.Escrow(c.ctx, c.project, v.ID, func(ref keystore.KeyVersionRef) error {
		return d.recordRelease(c, "disk escrow", v.ID, ref.String())
	})
	if err != nil {
		return nil, err
	}
	defer volume.DestroyAll(keys)
	return escrowText(sector, keys)
}

// secretAnswer is an answer that lies in key memory. Whoever sends it destroys it.
type secretAnswer struct {
	text *secret.Key
	// lost undoes what was done, where it is known that nobody got the answer.
	lost func()
}

// escrowText lays control.Escrow out as JSON. It is built by hand because an encoder would leave copies on the heap; the
// parts that are put in between are ids and numbers, which need no escaping.
func escrowText(sector int, keys []volume.EscrowKey) (*secretAnswer, error) {
	parts := []string{fmt.Sprintf(`{"cipher":%q,"sector_size":%d,"layers":[`, keystore.Cipher, sector)}
	for i, k := range keys {
		if i > 0 {
			parts[len(parts)-1] += ","
		}
		parts[len(parts)-1] += fmt.Sprintf(`{"id":%q,"key":"`, k.Layer)
		parts = append(parts, `"}`)
	}
	parts[len(parts)-1] += "]}\n"
	size := 0
	for i, p := range parts {
		size += len(p)
		if i < len(keys) {
			size += hex.EncodedLen(keys[i].Key.Len())
		}
	}
	text, err := secret.Work(size, secret.Purpose{Kind: "dek", For: "an escrow on its way out"})
	if err != nil {
		return nil, fmt.Errorf("daemon: escrow: %w", err)
	}
	secret.Do(func() { layOut(text.Bytes(), parts, keys) })
	return &secretAnswer{text: text}, nil
}

// layOut writes the parts with the keys between them.
func layOut(at []byte, parts []string, keys []volume.EscrowKey) {
	for i, p := range parts {
		at = at[copy(at, p):]
		if i < len(keys) {
			at = at[hex.Encode(at, keys[i].Key.Bytes()):]
		}
	}
}

// sendTime bounds how long a caller may take to read a secret answer.
const sendTime = 10 * time.Second

// send writes the answer past the buffers of the HTTP server, and wipes it.
func (a *secretAnswer) send(w http.ResponseWriter) (err error) {
	defer a.text.Destroy()
	defer func() {
		if err != nil && a.lost != nil {
			a.lost()
		}
	}()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("daemon: escrow: %w", err)
	}
	head := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", a.text.Len())
	_ = conn.SetDeadline(time.Now().Add(sendTime))
	_, err = conn.Write([]byte(head))
	if err == nil {
		_, err = conn.Write(a.text.Bytes())
	}
	return errors.Join(err, conn.Close())
}
