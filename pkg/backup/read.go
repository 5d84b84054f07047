package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
)

// Take is given what a chunk holds of the disk at off, and may write into p. It is called by several at a time.
type Take func(p []byte, off int64) error

// Restore reads the body of a backup that was verified, from a file, and hands out its data and its zeros, each page's before those of
// the next. Each chunk is held against its hash once more before it is handed out: the file may have been changed since it was verified.
func Restore(ctx context.Context, from io.ReaderAt, v Verified, data Take, zero func(off, n int64) error, progress func(data int64)) error {
	head := make([]byte, HeaderSize)
	if _, err := from.ReadAt(head, 0); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	r := &restore{ctx: ctx, from: from, header: v.Header, data: data, zero: zero, progress: progress, team: newTeam(), before: v.seed(), at: HeaderSize}
	defer r.team.close()
	for range v.Pages {
		pg, err := r.page()
		if err != nil {
			return err
		}
		r.done += pg.Data
		progress(r.done)
	}
	if manifestOf(head, r.before) != v.Manifest {
		return damaged("backup %s was changed while it was read", v.ID)
	}
	return nil
}

type restore struct {
	ctx    context.Context
	from   io.ReaderAt
	header Header
	data   Take
	zero   func(off, n int64) error
	team   *team

	progress func(data int64)
	done     int64

	number, first, at int64
	before            Hash
}

// page hands out one page.
func (r *restore) page() (pg Page, err error) {
	p := make([]byte, PageSize)
	if _, err := r.from.ReadAt(p, r.at); err != nil {
		return pg, fmt.Errorf("backup: %w", err)
	}
	r.at += PageSize
	if pg, err = decodePage(p, r.header, r.number, r.first, r.at, r.before); err != nil {
		return pg, err
	}
	for i, pieces := range pg.Pieces() {
		if r.ctx.Err() != nil || r.team.failed() {
			break
		}
		buf, at := r.team.buffer(), r.at+int64(i)*ChunkSize
		r.team.run(at, buf, func() error { return r.chunk(pg, i, pieces, buf[:pg.chunk(i)], at) })
		r.progress(r.done + int64(i)*ChunkSize)
	}
	if err := cmp.Or(r.team.wait(), r.ctx.Err()); err != nil {
		return pg, err
	}
	r.number, r.first, r.before = r.number+1, pg.Extents[len(pg.Extents)-1].End(), hashOf(p)
	r.at += pg.Data
	return pg, r.zeros(pg)
}

func (r *restore) chunk(pg Page, i int, pieces []Piece, p []byte, at int64) error {
	if n, err := r.from.ReadAt(p, at); n < len(p) {
		if errors.Is(err, io.EOF) {
			return damaged("the file ends at byte %d, inside of chunk %d of page %d", at+int64(n), i, pg.Number)
		}
		return fmt.Errorf("backup: %w", err)
	}
	if err := checkChunk(p, pg.Chunks[i], pg.Number, i, at); err != nil {
		return err
	}
	for _, pc := range pieces {
		if err := r.data(p[pc.At:pc.At+pc.N], pc.Off); err != nil {
			return err
		}
	}
	return nil
}

func (r *restore) zeros(pg Page) error {
	for _, e := range pg.Extents {
		if !e.Zero {
			continue
		}
		if err := r.zero(e.Block*BlockSize, e.Count*BlockSize); err != nil {
			return err
		}
	}
	return nil
}
