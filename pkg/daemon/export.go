package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// diskExport gives out a disk's bytes as they are on a dm-crypt volume, with the key to them.
func (d *Daemon) diskExport(c *call) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it, and keep what is printed as safe as the disk",
			"%s will be exported, and a key to the exported bytes will be printed in clear", nameOf(v))
	}
	out, err := d.volumes.Ciphertext(c.ctx, c.project, v.ID, func(ref *keystore.KeyVersionRef) error {
		return d.recordRelease(c, "disk export", v.ID, ref.String())
	})
	if err != nil {
		return nil, err
	}
	return &export{d, out}, nil
}

// export is an answer that goes out piece by piece.
type export struct {
	daemon *Daemon
	bytes  *volume.Ciphertext
}

// ServeHTTP sends the key and the bytes past the buffers of the HTTP server, in which the key would stay.
func (e *export) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	e.daemon.asking.Add(1) // the HTTP server will not wait for a connection that was taken from it
	defer e.daemon.asking.Done()
	err := e.send(w)
	if err = errors.Join(err, e.bytes.Close()); err != nil {
		e.daemon.o.Log.Error("an export broke off", "disk", e.bytes.Disk, "err", err)
	}
}

func (e *export) send(w http.ResponseWriter) error {
	key, err := escrowText(e.bytes.SectorSize, []volume.EscrowKey{e.bytes.Key})
	if err != nil {
		return err
	}
	defer key.text.Destroy()
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return fmt.Errorf("daemon: export: %w", err)
	}
	defer conn.Close()
	out := patient{conn}
	_, err = fmt.Fprintf(out, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n%s: %d\r\nContent-Length: %d\r\nConnection: close\r\n\r\n",
		control.HeaderSize, e.bytes.Size, int64(key.text.Len())+e.bytes.Size)
	if err == nil {
		_, err = out.Write(key.text.Bytes())
	}
	if err != nil {
		return fmt.Errorf("daemon: export: %w", err)
	}
	ctx, cancel := e.daemon.untilStop(context.Background())
	defer cancel()
	return e.bytes.Write(ctx, out)
}

// patient gives each piece its time: a reader that takes none of it does not hold the disk for ever.
type patient struct{ net.Conn }

const pieceTime = 30 * time.Second

func (p patient) Write(b []byte) (int, error) {
	_ = p.SetWriteDeadline(time.Now().Add(pieceTime))
	return p.Conn.Write(b)
}
