package volume

import (
	"bytes"
	"context"
	"io"
	"os"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/refusal"
)

// Carried is a backup on its way out: what its file has, and a trailer that was made for this. Whoever gets one closes it.
type Carried struct {
	io.Reader
	// Length is how long the whole file is, of which the reader begins where it was asked to.
	Length int64
	close  func()
}

// Close lets go of the backup.
func (c *Carried) Close() { c.close() }

// ExportBackup gives out a backup's file from a byte on, with the key as it is wrapped now. Where that is behind the body, it begins with the
// trailer.
func (s *Service) ExportBackup(ctx context.Context, project, ref string, from int64) (c *Carried, start int64, err error) {
	p, err := s.lookUpBackup(ctx, project, ref)
	if err == nil {
		err = p.whole()
	}
	if err != nil {
		return nil, 0, err
	}
	free, err := s.usePoint(p)
	if err != nil {
		return nil, 0, err
	}
	f, err := s.openBackup(p)
	if err != nil {
		free()
		return nil, 0, err
	}
	c = &Carried{Length: p.Backup.Length, close: func() { _ = f.Close(); free() }}
	if start, err = s.export(ctx, p, f, from, c); err != nil {
		c.Close()
		return nil, 0, inBackup(p, err)
	}
	return c, start, nil
}

func (s *Service) export(ctx context.Context, p pointRecord, f *os.File, from int64, c *Carried) (start int64, err error) {
	h, err := headerOf(f)
	if err != nil {
		return 0, err
	}
	if h.ID != p.ID || h.Length() != p.Backup.Length {
		return 0, refusal.New(refusal.Damaged, "get this backup from another copy", "it is backup %s of %d bytes", h.ID, h.Length())
	}
	start = max(0, min(from, h.Body()))
	tail, err := s.ownTrailer(ctx, p, f, h)
	c.Reader = io.MultiReader(io.NewSectionReader(f, start, h.Body()-start), bytes.NewReader(tail))
	return start, err
}

// ownTrailer is a trailer made for this export; that of a backup of another store goes out as it came.
func (s *Service) ownTrailer(ctx context.Context, p pointRecord, f *os.File, h backup.Header) ([]byte, error) {
	if p.Backup.Store == s.Keys.ID() {
		return s.trailer(ctx, p)
	}
	tail := make([]byte, h.Length()-h.Body())
	_, err := f.ReadAt(tail, h.Body())
	return tail, err
}
