package control

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// taken is what a reader makes of an upload: its bytes, with zeros where there were holes.
func taken(t *testing.T, sent []byte, limit int64) ([]byte, error) {
	t.Helper()
	f := NewFrameReader(bytes.NewReader(sent), limit)
	all := []byte{}
	for {
		p, off, err := f.Next()
		if errors.Is(err, io.EOF) {
			return append(all, make([]byte, f.Size()-int64(len(all)))...), nil
		}
		if err != nil {
			return nil, err
		}
		all = append(append(all, make([]byte, off-int64(len(all)))...), p...)
	}
}

func TestFramesKeepBytesAndHoles(t *testing.T) {
	const size = 5 << 20
	var sent bytes.Buffer
	w, want := NewFrameWriter(&sent), make([]byte, size)
	for _, at := range []int{7, 2 << 20, 4 << 20} {
		piece := want[at:min(size, at+maxFrame+9)] // more than a frame
		for i := range piece {
			piece[i] = byte(at>>20 + i)
		}
		if _, err := w.WriteAt(piece, int64(at)); err != nil {
			t.Fatal(err)
		}
		w.wait()
		w.wait()
	}
	if err := w.End(size); err != nil {
		t.Fatal(err)
	}
	w.wait()
	got, err := taken(t, sent.Bytes(), size)
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if most := 3*maxFrame + 20*frameHeader; sent.Len() > most {
		t.Errorf("%d bytes were sent, want at most %d: holes are not sent", sent.Len(), most)
	}
}

// An upload of which any byte at the end is missing, or which goes on after it, is never taken for whole.
func TestACutUploadIsNotWhole(t *testing.T) {
	var sent bytes.Buffer
	w := NewFrameWriter(&sent)
	_, _ = w.Write([]byte("some"))
	_, _ = w.WriteAt([]byte("more"), 100)
	_ = w.End(200)
	for n := range sent.Len() {
		if _, err := taken(t, sent.Bytes()[:n], 1000); refusal.CodeOf(err) != refusal.Failed || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut at byte %d of %d: %v", n, sent.Len(), err)
		}
	}
	if _, err := taken(t, append(sent.Bytes(), 0), 1000); refusal.CodeOf(err) != refusal.Usage {
		t.Errorf("a byte more: %v", err)
	}
	if _, err := taken(t, sent.Bytes(), 200); err != nil {
		t.Errorf("whole: %v", err)
	}
	if _, err := taken(t, sent.Bytes(), 199); refusal.CodeOf(err) != refusal.Usage {
		t.Errorf("longer than it may be: %v", err)
	}
}

func frame(off uint64, length, kind uint32, p string) []byte {
	b := binary.BigEndian.AppendUint64(nil, off)
	b = binary.BigEndian.AppendUint32(binary.BigEndian.AppendUint32(b, length), kind)
	return append(b, p...)
}

func TestWrongFramesAreRefused(t *testing.T) {
	for name, sent := range map[string][]byte{
		"backwards":      append(frame(8, 1, 1, "x"), frame(7, 1, 1, "x")...),
		"over another":   append(frame(8, 2, 1, "xx"), frame(9, 1, 1, "x")...),
		"empty":          frame(0, 0, 1, ""),
		"too long":       frame(0, maxFrame+1, 1, ""),
		"past the end":   frame(95, 6, 1, "xxxxxx"),
		"past 2^64":      frame(1<<64-1, 2, 1, "xx"),
		"negative":       frame(1<<63, 1, 1, "x"),
		"end past it":    frame(101, 0, 2, ""),
		"end before":     append(frame(8, 1, 1, "x"), frame(8, 0, 2, "")...),
		"end with bytes": frame(8, 1, 2, "x"),
		"wait with":      frame(8, 0, 3, ""),
		"kind 0":         frame(0, 0, 0, ""),
		"kind 4":         frame(0, 0, 4, ""),
	} {
		if _, err := taken(t, sent, 100); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReadRefusesHoles(t *testing.T) {
	for name, sent := range map[string][]byte{
		"in it":      append(frame(1, 1, 1, "x"), frame(2, 0, 2, "")...),
		"at its end": append(frame(0, 1, 1, "x"), frame(2, 0, 2, "")...),
	} {
		if _, err := io.ReadAll(NewFrameReader(bytes.NewReader(sent), 100)); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("a hole %s: %v", name, err)
		}
	}
	got, err := io.ReadAll(NewFrameReader(bytes.NewReader(append(append(frame(0, 3, 1, "abc"), frame(3, 1, 1, "d")...), frame(4, 0, 2, "")...)), 100))
	if string(got) != "abcd" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
}

// Whatever is sent, frames that are given out ascend, do not overlap and lie within the limit.
func FuzzFrames(f *testing.F) {
	f.Add(append(frame(0, 3, 1, "abc"), frame(9, 0, 2, "")...))
	f.Add(append(frame(0, 0, 3, ""), frame(7, 1, 1, "x")...))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r, end := NewFrameReader(bytes.NewReader(sent), 1<<20), int64(0)
		for {
			p, off, err := r.Next()
			if err != nil {
				if errors.Is(err, io.EOF) && (r.Size() < end || r.Size() > 1<<20) {
					t.Fatalf("it ends at %d after %d", r.Size(), end)
				}
				return
			}
			if off < end || len(p) == 0 || off+int64(len(p)) > 1<<20 {
				t.Fatalf("%d bytes at %d after %d", len(p), off, end)
			}
			end = off + int64(len(p))
		}
	})
}
