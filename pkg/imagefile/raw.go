package imagefile

import (
	"bufio"
	"context"
	"errors"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// rawFile is a file whose bytes are the disk.
type rawFile struct {
	*os.File
	length int64
}

// extent asks the file system for holes. One that knows none, and a block device, is data throughout.
func (r *rawFile) extent(off int64) (data bool, end int64, err error) {
	next, err := unix.Seek(int(r.Fd()), off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		return false, r.length, nil
	case err != nil:
		return true, r.length, nil
	case next > off:
		return false, min(next, r.length), nil
	}
	end, err = unix.Seek(int(r.Fd()), off, unix.SEEK_HOLE)
	if err != nil || end <= off {
		end = r.length
	}
	return true, min(end, r.length), nil
}

// openPipe takes what can only be read once, from its beginning: bytes that are the disk.
func openPipe(ctx context.Context, name string, r io.Reader, format string, end func() error) (*Image, error) {
	in := bufio.NewReaderSize(r, readStep)
	if format == Auto {
		head, err := peek(ctx, in)
		if err != nil {
			return nil, err
		}
		if format, err = formatOf(name, head); err != nil {
			return nil, err
		}
	}
	if format != Raw {
		return nil, refusal.New(refusal.Usage, "save it as a file, or convert it on the way to raw; --format raw takes the bytes as they are",
			"%s is no file, and %s can't be read from beginning to end", name, format)
	}
	return &Image{Format: Raw, Size: -1, path: name, reader: &pipe{r: in}, close: end}, nil
}

// peek waits for what a pipe begins with, but no longer than ctx lives.
func peek(ctx context.Context, in *bufio.Reader) (head []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if head, err = in.Peek(magicLength); err == io.EOF {
			err = nil // it is short
		}
	}()
	select {
	case <-done:
		return head, err
	case <-ctx.Done():
		return nil, refusal.New(refusal.Failed, "run the command again to start over", "interrupted: nothing was done")
	}
}

// pipe is read from beginning to end.
type pipe struct {
	r  io.Reader
	at int64
}

func (p *pipe) extent(off int64) (bool, int64, error) { return true, MaxSize + 1, nil }

func (p *pipe) ReadAt(b []byte, off int64) (int, error) {
	if off != p.at {
		return 0, errors.New("imagefile: a pipe can't be read at another place")
	}
	n, err := io.ReadFull(p.r, b)
	p.at += int64(n)
	if errors.Is(err, io.ErrUnexpectedEOF) {
		err = io.EOF
	}
	return n, err
}
