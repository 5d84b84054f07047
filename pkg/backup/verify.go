package backup

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
)

// Verified is a backup that is whole, and signed under the pinned key.
type Verified struct {
	Header
	Trailer  Trailer
	Manifest Hash
}

// Verify reads a backup from its beginning to its end, which nothing may follow. progress is told how many bytes are done.
func Verify(ctx context.Context, r io.Reader, pinned ed25519.PublicKey, progress func(done, total int64)) (v Verified, err error) {
	if len(pinned) != ed25519.PublicKeySize {
		return v, fmt.Errorf("backup: a public key of %d bytes", len(pinned))
	}
	s := &stream{r: r}
	head, err := s.take(make([]byte, HeaderSize), HeaderSize)
	if err != nil {
		return v, err
	}
	if v.Header, err = DecodeHeader(head); err != nil {
		return v, err
	}
	s.length, s.progress = v.Length(), progress
	last, err := s.pages(ctx, v.Header)
	if err != nil {
		return v, err
	}
	v.Manifest = manifestOf(head, last)
	tail, err := s.take(head, v.Length())
	if err != nil {
		return v, err
	}
	if v.Trailer, err = decodeTrailer(tail, v.Header, v.Manifest, pinned); err != nil {
		return v, err
	}
	return v, s.ended()
}

// stream counts what was read.
type stream struct {
	r        io.Reader
	at       int64
	length   int64
	progress func(done, total int64)
}

// take fills p. length is how long the file should be, for who is told that it is shorter.
func (s *stream) take(p []byte, length int64) ([]byte, error) {
	n, err := io.ReadFull(s.r, p)
	s.at += int64(n)
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return nil, damaged("the file ends at byte %d, where it should have %d", s.at, max(length, HeaderSize))
	case err != nil:
		return nil, fmt.Errorf("backup: reading at byte %d: %w", s.at, err)
	}
	if s.progress != nil {
		s.progress(s.at, s.length)
	}
	return p, nil
}

// ended refuses what comes after the end.
func (s *stream) ended() error {
	switch n, err := io.ReadFull(s.r, make([]byte, 1)); {
	case n > 0:
		return damaged("the file goes on after its end, byte %d", s.at)
	case !errors.Is(err, io.EOF):
		return fmt.Errorf("backup: reading at byte %d: %w", s.at, err)
	}
	return nil
}

// pages reads all pages and their data, and tells the hash of the last one.
func (s *stream) pages(ctx context.Context, h Header) (before Hash, err error) {
	buf, first, data := make([]byte, PageSize), int64(0), int64(0)
	before = h.seed()
	team := newTeam()
	defer team.close()
	for number := range h.Pages {
		p, err := s.take(buf, s.length)
		if err != nil {
			return before, err
		}
		pg, err := decodePage(p, h, number, first, s.at, before)
		if err != nil {
			return before, err
		}
		if data += pg.Data; data > h.Data {
			return before, damaged("the pages up to %d give %d bytes of data, the header %d", number, data, h.Data)
		}
		if err := s.chunks(ctx, pg, team); err != nil {
			return before, err
		}
		before, first = hashOf(p), pg.Extents[len(pg.Extents)-1].End()
	}
	if data != h.Data {
		return before, damaged("the pages give %d bytes of data, the header %d", data, h.Data)
	}
	return before, nil
}

// chunks reads the data of one page; others hash what is read while it reads on.
func (s *stream) chunks(ctx context.Context, pg Page, team *team) error {
	for i, want := range pg.Chunks {
		if err := ctx.Err(); err != nil {
			return cmp.Or(team.wait(), fmt.Errorf("backup: %w", err))
		}
		buf, at := team.buffer(), s.at
		p, err := s.take(buf[:pg.chunk(i)], s.length)
		team.run(at, buf, func() error { return cmp.Or(err, checkChunk(p, want, pg.Number, i, at)) })
		if err != nil || team.failed() {
			break
		}
	}
	return team.wait() // of two failures that which stands first in the file
}

func checkChunk(p []byte, want Hash, page int64, i int, at int64) error {
	if hashOf(p) == want {
		return nil
	}
	return damaged("chunk %d of page %d, bytes %d to %d, is not as it was written", i, page, at, at+int64(len(p))-1)
}

// Follows refuses a child whose parent is another one. Both were verified.
func Follows(child, parent Verified) error {
	switch {
	case child.Parent != parent.ID || child.ParentManifest != parent.Manifest:
		return damaged("backup %s (%s) stands on %s with the manifest hash %s, and not on %s with %s", child.ID, child.Name, child.Parent, child.ParentManifest, parent.ID, parent.Manifest)
	case child.Store != parent.Store || child.Disk != parent.Disk || child.Encrypted != parent.Encrypted || child.SectorSize != parent.SectorSize ||
		child.Depth != parent.Depth+1 || child.Size < parent.Size:
		return damaged("backup %s (%s) is not what can stand on %s (%s): store, disk, attribute, sector size, depth or size do not fit", child.ID, child.Name, parent.ID, parent.Name)
	}
	return nil
}
