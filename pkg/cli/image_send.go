package cli

import (
	"context"
	"io"
	"sync"
	"sync/atomic"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/imagefile"
	"nbdcrypt/pkg/refusal"
)

// uploadImage sends a file as an image, and tells the meter how far it is.
func uploadImage(ctx context.Context, c *control.Client, name string, wish imageWish, file *imagefile.Image) (control.Image, error) {
	ask := control.ImageUpload{Name: name, Size: max(0, file.Size), Encrypted: wish.choice(), Key: wish.key}
	if wish.sector != minSector {
		ask.SectorSize = wish.sector
	}
	var whole atomic.Bool
	var reading sync.Mutex // who is refused hears that while the file is read still, and must not close it under the reader
	var over bool
	image, err := c.ImageUpload(ctx, ask, func(f *control.FrameWriter) error {
		reading.Lock()
		defer reading.Unlock()
		if over {
			return io.ErrClosedPipe
		}
		size, err := file.Copy(ctx, func(p []byte, off int64) error {
			_, err := f.WriteAt(p, off)
			return err
		}, func(done int64) {
			c.Tell(control.Job{Verb: "image create", Resource: name, Unit: "bytes", Done: done, Total: ask.Size})
		})
		if err != nil {
			return err
		}
		whole.Store(true)
		return f.End(size)
	})
	if file.Size >= 0 { // who reads a pipe may wait for long
		reading.Lock()
		over = true
		reading.Unlock()
	}
	if err != nil && ctx.Err() != nil && !whole.Load() {
		return image, refusal.New(refusal.Failed, "run the command again to start over", "interrupted: nothing of image %s is kept", name)
	}
	return image, err
}
