package catalog

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"io"
)

// The stream of Export: a magic line and the revision; each pair as length of key (2 bytes), length of value
// (4 bytes), key, value; a key length of 0, the number of pairs (8 bytes) and SHA-256 over all before it.
const streamMagic = "nbdcrypt-catalog 1\n"

// maxStream bounds what Import holds in memory before it has seen that the stream is whole.
const maxStream = 1 << 30

// Export implements Store.
func (s *store) Export(ctx context.Context, w io.Writer) error {
	return s.View(ctx, func(r Reader) error {
		snap := r.(reader).snap
		m, err := readMeta(snap)
		if err != nil {
			return err
		}
		if err := WriteStream(ctx, w, m.revision, r); err != nil {
			return fmt.Errorf("catalog: export: %w", err)
		}
		return nil
	})
}

// WriteStream writes the stream of Export: everything that a Reader has, as of a revision.
func WriteStream(ctx context.Context, w io.Writer, revision uint64, r Reader) error {
	h, buf := sha256.New(), bufio.NewWriter(w)
	out := io.MultiWriter(buf, h)
	_, _ = out.Write(binary.BigEndian.AppendUint64([]byte(streamMagic), revision))
	count := uint64(0)
	err := Each(r, "", func(p Pair) error {
		count++
		return errors.Join(writePair(out, p), ctx.Err())
	})
	if err != nil {
		return err
	}
	_, _ = out.Write(binary.BigEndian.AppendUint64([]byte{0, 0}, count))
	_, _ = buf.Write(h.Sum(nil))
	return buf.Flush()
}

func writePair(w io.Writer, p Pair) error {
	head := binary.BigEndian.AppendUint16(nil, uint16(len(p.Key)))
	head = binary.BigEndian.AppendUint32(head, uint32(len(p.Value)))
	_, err := w.Write(append(append(head, p.Key...), p.Value...))
	return err
}

// Import implements Store. Nothing is written before the stream has proven whole; a store that can't take all of
// it afterwards (it is full, say) is left with part, and the error says so.
func (s *store) Import(ctx context.Context, r io.Reader) error {
	revision, pairs, err := readStream(r)
	if err != nil {
		return fmt.Errorf("catalog: import: %w", err)
	}
	if err := s.mustBeEmpty(ctx); err != nil {
		return err
	}
	for first := true; first || len(pairs) > 0; first = false {
		n := batch(pairs)
		if err := s.importBatch(ctx, revision, pairs[:n]); err != nil {
			return fmt.Errorf("catalog: import stopped with %d records to go: %w", len(pairs), err)
		}
		pairs = pairs[n:]
	}
	return nil
}

// batch is how many of the pairs go into one commit: as many as an Update's at least, and small ones by the thousand, within half of what
// Badger takes at once.
func batch(pairs []Pair) (n int) {
	for size := 0; n < len(pairs) && n < 1000; n++ {
		if size += len(pairs[n].Key) + min(len(pairs[n].Value), inlineValue); size > memTable/15 && n >= MaxOps {
			break
		}
	}
	return n
}

func (s *store) mustBeEmpty(ctx context.Context) error {
	return s.View(ctx, func(r Reader) error {
		pairs, err := r.Scan("", "", 1)
		if err == nil && len(pairs) > 0 {
			err = fmt.Errorf("catalog: import: the store is not empty, it has %q", pairs[0].Key)
		}
		return err
	})
}

// importBatch writes some pairs; the revision becomes at least the stream's, so that it never goes back.
func (s *store) importBatch(ctx context.Context, revision uint64, pairs []Pair) error {
	return s.change(ctx, func(snap snapshot) ([]change, []string, error) {
		m, err := readMeta(snap)
		if err != nil {
			return nil, nil, err
		}
		m.revision = max(m.revision+1, revision)
		changes, keys := make([]change, len(pairs)), make([]string, len(pairs))
		for i, p := range pairs {
			changes[i], keys[i] = change{p.Key, p.Value}, p.Key
		}
		changes, err = tally(snap, m, changes)
		return changes, keys, err
	})
}

// hashReader hashes what is read through it.
type hashReader struct {
	r io.Reader
	h hash.Hash
}

func (t hashReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	t.h.Write(p[:n])
	return n, err
}

func readStream(r io.Reader) (revision uint64, pairs []Pair, err error) {
	raw := bufio.NewReader(r)
	in := hashReader{raw, sha256.New()}
	head := make([]byte, len(streamMagic)+8)
	if _, err := io.ReadFull(in, head); err != nil {
		return 0, nil, torn(err)
	}
	if string(head[:len(streamMagic)]) != streamMagic {
		return 0, nil, fmt.Errorf("%w: this is no catalog stream of version 1", ErrDamaged)
	}
	for last, size := "", 0; ; {
		p, err := readPair(in)
		if err != nil {
			return 0, nil, err
		}
		if p.Key == "" {
			break
		}
		if size += len(p.Key) + len(p.Value); size > maxStream {
			return 0, nil, fmt.Errorf("%w: the stream is longer than %d MiB", ErrTooLarge, maxStream>>20)
		}
		if p.Key <= last {
			return 0, nil, fmt.Errorf("%w: %q does not come after %q", ErrDamaged, p.Key, last)
		}
		last = p.Key
		pairs = append(pairs, p)
	}
	return binary.BigEndian.Uint64(head[len(streamMagic):]), pairs, readTrailer(in, raw, len(pairs))
}

// readPair reads one pair, or an empty key at the trailer.
func readPair(in io.Reader) (p Pair, err error) {
	var head [6]byte
	if _, err := io.ReadFull(in, head[:2]); err != nil {
		return p, torn(err)
	}
	n := binary.BigEndian.Uint16(head[:])
	if n == 0 {
		return p, nil
	}
	if _, err := io.ReadFull(in, head[2:]); err != nil {
		return p, torn(err)
	}
	v := binary.BigEndian.Uint32(head[2:])
	if n > MaxKey || v > MaxValue {
		return p, fmt.Errorf("%w: a key of %d and a value of %d bytes", ErrDamaged, n, v)
	}
	b := make([]byte, int(n)+int(v))
	if _, err := io.ReadFull(in, b); err != nil {
		return p, torn(err)
	}
	p = Pair{string(b[:n]), b[n:]}
	if checkKey(p.Key) != nil {
		return p, fmt.Errorf("%w: %q can't be a key", ErrDamaged, p.Key)
	}
	return p, nil
}

func readTrailer(in hashReader, raw *bufio.Reader, pairs int) error {
	var count [8]byte
	if _, err := io.ReadFull(in, count[:]); err != nil {
		return torn(err)
	}
	var sum [sha256.Size]byte
	if _, err := io.ReadFull(raw, sum[:]); err != nil {
		return torn(err)
	}
	if binary.BigEndian.Uint64(count[:]) != uint64(pairs) || !bytes.Equal(sum[:], in.h.Sum(nil)) {
		return fmt.Errorf("%w: the stream's sum does not fit", ErrDamaged)
	}
	if _, err := raw.ReadByte(); err != io.EOF {
		return fmt.Errorf("%w: something follows the stream's end", ErrDamaged)
	}
	return nil
}

// torn tells the end of the stream in the wrong place from an error of whoever reads it.
func torn(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the stream is cut short", ErrDamaged)
	}
	return err
}
