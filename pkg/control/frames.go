package control

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"nbdcrypt/pkg/refusal"
)

// An upload is a sequence of frames, each a header of 16 bytes and as many bytes as that says:
//
//	offset  8  where the bytes belong; in an end frame, how long all of it is
//	length  4  how many bytes follow, at most 1 MiB
//	kind    4  1 data, 2 end, 3 wait
//
// Numbers are big-endian. Frames of data come in ascending order and do not overlap; what none of them has is zeros. The end
// frame is the last and has length 0: without it an upload broke off. A wait frame, of offset and length 0, says that there is
// nothing yet, and nothing else.
const (
	frameHeader = 16
	maxFrame    = 1 << 20

	frameData = 1
	frameEnd  = 2
	frameWait = 3
)

// waitEvery is how often a sender who has nothing to send says so. It is well below what the daemon waits.
const waitEvery = 10 * time.Second

// FrameWriter sends an upload. It may be used from many goroutines.
type FrameWriter struct {
	w io.Writer

	mu   sync.Mutex
	at   int64 // where the last frame of data has ended
	sent bool  // since the last wait frame
	err  error // of what was sent, or errEnded
}

// NewFrameWriter returns a writer of frames to w.
func NewFrameWriter(w io.Writer) *FrameWriter { return &FrameWriter{w: w} }

// WriteAt sends p, which belongs at off, past all that was sent before.
func (f *FrameWriter) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off < f.at {
		return 0, fmt.Errorf("control: upload: byte %d after byte %d", off, f.at)
	}
	done := 0
	for done < len(p) {
		piece := p[done:min(len(p), done+maxFrame)]
		if err := f.send(off+int64(done), frameData, piece); err != nil {
			return done, err
		}
		done += len(piece)
		f.at = off + int64(done)
	}
	return done, nil
}

// Write sends p after what was sent before.
func (f *FrameWriter) Write(p []byte) (int, error) {
	f.mu.Lock()
	at := f.at
	f.mu.Unlock()
	return f.WriteAt(p, at)
}

// End says that this was all of size bytes.
func (f *FrameWriter) End(size int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	err := f.send(size, frameEnd, nil)
	if err == nil {
		f.err = errEnded
	}
	return err
}

var errEnded = errors.New("control: upload: it has ended")

// wait sends a wait frame where nothing else was sent since the last.
func (f *FrameWriter) wait() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if !f.sent && f.err == nil {
		_ = f.send(0, frameWait, nil) // who sends data next meets what is wrong
	}
	f.sent = false
}

func (f *FrameWriter) send(off int64, kind uint32, p []byte) error {
	if f.err != nil {
		return f.err
	}
	header := binary.BigEndian.AppendUint64(make([]byte, 0, frameHeader), uint64(off))
	header = binary.BigEndian.AppendUint32(header, uint32(len(p)))
	header = binary.BigEndian.AppendUint32(header, kind)
	_, f.err = f.w.Write(header)
	if f.err == nil && len(p) > 0 {
		_, f.err = f.w.Write(p)
	}
	f.sent = true
	return f.err
}

// FrameReader reads an upload.
type FrameReader struct {
	r     io.Reader
	limit int64
	at    int64
	ended bool
	buf   []byte
	rest  []byte // of the last frame, for Read
}

// NewFrameReader returns a reader of frames that end before limit.
func NewFrameReader(r io.Reader, limit int64) *FrameReader { return &FrameReader{r: r, limit: limit} }

// Next gives the next bytes and where they belong; they are lent until the next call. io.EOF says that this was all, and
// Size how long all of it is.
func (f *FrameReader) Next() (p []byte, off int64, err error) {
	for !f.ended {
		off, length, kind, err := f.header()
		if err != nil {
			return nil, 0, err
		}
		switch {
		case kind == frameWait:
		case kind == frameEnd:
			f.at, f.ended = off, true
		default:
			p, err := f.data(off, length)
			return p, off, err
		}
	}
	return nil, 0, f.last()
}

// Size is how long all of it is, once Next has said that there is no more.
func (f *FrameReader) Size() int64 { return f.at }

// Wipe clears what was read last.
func (f *FrameReader) Wipe() { clear(f.buf) }

// Read gives the bytes of an upload without holes, one after the other.
func (f *FrameReader) Read(p []byte) (int, error) {
	if len(f.rest) == 0 {
		want := f.at
		next, off, err := f.Next()
		if err == nil && off != want || errors.Is(err, io.EOF) && f.at != want {
			err = brokenFrame("bytes are missing at byte %d", want)
		}
		if err != nil {
			return 0, err
		}
		f.rest = next
	}
	n := copy(p, f.rest)
	f.rest = f.rest[n:]
	return n, nil
}

func (f *FrameReader) header() (off int64, length int, kind uint32, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(f.r, header[:]); err != nil {
		return 0, 0, 0, brokeOff(err)
	}
	offset, size := binary.BigEndian.Uint64(header[:]), binary.BigEndian.Uint32(header[8:])
	kind = binary.BigEndian.Uint32(header[12:])
	end := offset + uint64(size)
	switch kind {
	case frameData:
		if size == 0 || size > maxFrame || offset < uint64(f.at) || end < offset || end > uint64(f.limit) {
			return 0, 0, 0, brokenFrame("%d bytes at byte %d, after byte %d and within %d", size, offset, f.at, f.limit)
		}
	case frameEnd:
		if size != 0 || offset < uint64(f.at) || offset > uint64(f.limit) {
			return 0, 0, 0, brokenFrame("it ends at byte %d, after byte %d and within %d", offset, f.at, f.limit)
		}
	case frameWait:
		if offset != 0 || size != 0 {
			return 0, 0, 0, brokenFrame("a wait frame has something")
		}
	default:
		return 0, 0, 0, brokenFrame("kind %d", kind)
	}
	return int64(offset), int(size), kind, nil
}

func (f *FrameReader) data(off int64, length int) ([]byte, error) {
	if cap(f.buf) < length {
		clear(f.buf)
		f.buf = make([]byte, length)
	}
	f.buf = f.buf[:cap(f.buf)]
	if _, err := io.ReadFull(f.r, f.buf[:length]); err != nil {
		return nil, brokeOff(err)
	}
	f.at = off + int64(length)
	return f.buf[:length], nil
}

// last holds an upload to its end frame.
func (f *FrameReader) last() error {
	var more [1]byte
	if n, err := f.r.Read(more[:]); n > 0 {
		return brokenFrame("it goes on after its end")
	} else if err != nil && !errors.Is(err, io.EOF) {
		return brokeOff(err)
	}
	return io.EOF
}

func brokenFrame(format string, a ...any) error {
	return refusal.New(refusal.Usage, "use a client of this daemon's version", "the upload is wrong: "+format, a...)
}

func brokeOff(err error) error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF // also where a frame would begin: the end frame is missing
	}
	if errors.Is(err, errStopping) {
		return err
	}
	return refusal.New(refusal.Failed, "send it again", "the upload broke off: %w", err)
}
