package imagefile

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
)

// mapped is a part of the disk as qemu-img tells it: where it stands in the file, if that has its bytes as they are.
type mapped struct {
	Length int64  `json:"length"`
	Data   bool   `json:"data"`
	Offset *int64 `json:"offset"`
}

// whole refuses a file that ends before what its tables name. QEMU reads zeros there, and does not say so.
func (i *Image) whole(ctx context.Context, file *os.File) error {
	length, err := file.Seek(0, io.SeekEnd)
	if err != nil {
		return i.failed(err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // where not all was read
	cmd, err := command(ctx, file, "qemu-img", "map", "--output=json", options(i.Format))
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return i.gaveUp(err)
	}
	list := json.NewDecoder(out)
	_, err = list.Token()
	for err == nil && list.More() {
		var m mapped
		if err = list.Decode(&m); err == nil && m.Data && m.Offset != nil && *m.Offset > length-m.Length {
			err = damaged(i.path, i.Format, "it is cut off: it has %d bytes, and its disk needs those up to %d", length, *m.Offset+m.Length)
			cancel()
			_ = cmd.Wait() // it was ended
			return err
		}
	}
	_, _ = io.Copy(io.Discard, out)
	if ended := cmd.Wait(); ended != nil {
		return i.gaveUp(because(&said, ended))
	}
	if err != nil {
		return i.gaveUp(fmt.Errorf("qemu-img: %w", err))
	}
	return nil
}
