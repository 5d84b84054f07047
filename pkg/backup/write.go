package backup

import (
	"context"
	"fmt"
	"io"
)

// Fill puts what the disk holds at off into p, as it shall stand in the backup. It is called by several at a time.
type Fill func(p []byte, off int64) error

// Writer writes the body of a backup. Extents come in rising order; a page and its data are written when the page is full.
type Writer struct {
	ctx      context.Context
	to       io.WriterAt
	fill     Fill
	progress func(data int64)
	header   Header
	team     *team

	page  Page
	first int64
	at    int64
}

// NewWriter begins the body of a backup at the beginning of a file. progress is told how many bytes of data are written.
func NewWriter(ctx context.Context, to io.WriterAt, h Header, fill Fill, progress func(data int64)) *Writer {
	h.Pages, h.Data = 0, 0
	return &Writer{ctx: ctx, to: to, fill: fill, progress: progress, header: h, team: newTeam(), page: Page{Before: h.seed()}, at: HeaderSize}
}

// Add adds an extent behind all that were added. One that is too much for a page is split.
func (w *Writer) Add(e Extent) error {
	if e.Count < 1 || e.Block < w.first || e.End() > blocks(w.header.Size) {
		return fmt.Errorf("backup: an extent of %d blocks at %d, behind block %d of %d", e.Count, e.Block, w.first, blocks(w.header.Size))
	}
	for w.first = e.End(); e.Count > 0; {
		room := (maxPageData - w.page.Data) / BlockSize
		if e.Zero {
			room = maxZeroCount
		}
		if len(w.page.Extents) == MaxExtents || room == 0 {
			if err := w.flush(); err != nil {
				return err
			}
			continue
		}
		part := Extent{e.Block, min(e.Count, room), e.Zero}
		w.page.Extents = append(w.page.Extents, part)
		if !e.Zero {
			w.page.Data += part.Count * BlockSize
		}
		e.Block, e.Count = part.End(), e.Count-part.Count
	}
	return nil
}

// flush writes the page and its data. The data comes first: only then are its hashes known.
func (w *Writer) flush() error {
	if len(w.page.Extents) == 0 {
		return nil
	}
	w.page.Chunks = make([]Hash, (w.page.Data+ChunkSize-1)/ChunkSize)
	data := w.at + PageSize
	for i, pieces := range w.page.Pieces() {
		if w.ctx.Err() != nil || w.team.failed() {
			break
		}
		buf, at := w.team.buffer(), data+int64(i)*ChunkSize
		p, sum := buf[:w.page.chunk(i)], &w.page.Chunks[i]
		w.team.run(at, buf, func() error { return w.chunk(p, pieces, at, sum) })
		w.progress(w.header.Data + int64(i)*ChunkSize) // a page is too much to wait for, and those before this one are done or nearly so
	}
	if err := w.team.wait(); err != nil {
		return err
	}
	if err := w.ctx.Err(); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	p := w.page.Encode()
	if _, err := w.to.WriteAt(p, w.at); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	w.header.Pages++
	w.header.Data += w.page.Data
	w.at = data + w.page.Data
	w.page = Page{Number: w.page.Number + 1, Before: hashOf(p)}
	w.progress(w.header.Data)
	return nil
}

// chunk makes a chunk out of its pieces, and writes it.
func (w *Writer) chunk(p []byte, pieces []Piece, at int64, sum *Hash) error {
	for _, pc := range pieces {
		if err := w.fill(p[pc.At:pc.At+pc.N], pc.Off); err != nil {
			return err
		}
	}
	*sum = hashOf(p)
	if _, err := w.to.WriteAt(p, at); err != nil {
		return fmt.Errorf("backup: %w", err)
	}
	return nil
}

// Finish writes what is left of the body, and tells the header with its numbers, and the manifest hash. The trailer goes behind
// Header.Body.
func (w *Writer) Finish() (h Header, manifest Hash, err error) {
	if err := w.flush(); err != nil {
		return h, manifest, err
	}
	head := w.header.Encode()
	if _, err := w.to.WriteAt(head, 0); err != nil {
		return h, manifest, fmt.Errorf("backup: %w", err)
	}
	return w.header, manifestOf(head, w.page.Before), nil
}

// Close ends what works on chunks.
func (w *Writer) Close() { w.team.close() }
