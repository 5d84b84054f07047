package backup

import (
	"bytes"
	"encoding/binary"
	"iter"
)

const (
	pageMagic  = "NBDCPAG\n"
	pageHashAt = PageSize - hashSize
	kindData   = 1
	kindZero   = 2
)

// Extent is a run of blocks that are data, or zeros.
type Extent struct {
	Block int64
	Count int64
	Zero  bool
}

// End is the block behind the extent.
func (e Extent) End() int64 { return e.Block + e.Count }

// Page tells what the data behind it is.
type Page struct {
	Number  int64
	Before  Hash // of the page before, or of the id where there is none
	Extents []Extent
	Chunks  []Hash
	Data    int64
}

// Encode gives the page's bytes.
func (pg Page) Encode() []byte {
	p, le := make([]byte, PageSize), binary.LittleEndian
	copy(p, pageMagic)
	le.PutUint64(p[8:], uint64(pg.Number))
	le.PutUint32(p[16:], uint32(len(pg.Extents)))
	le.PutUint32(p[20:], uint32(len(pg.Chunks)))
	le.PutUint64(p[24:], uint64(pg.Data))
	copy(p[32:], pg.Before[:])
	at := pageHead
	for _, e := range pg.Extents {
		kind := uint32(kindData)
		if e.Zero {
			kind = kindZero
		}
		le.PutUint64(p[at:], uint64(e.Block))
		le.PutUint32(p[at+8:], uint32(e.Count))
		le.PutUint32(p[at+12:], kind)
		at += extentSize
	}
	for _, h := range pg.Chunks {
		at += copy(p[at:], h[:])
	}
	sum := hashOf(p[:pageHashAt])
	copy(p[pageHashAt:], sum[:])
	return p
}

// decodePage reads page number of a backup, whose extents begin at block first at the earliest. The page's chunks stand in the file
// from byte at on.
func decodePage(p []byte, h Header, number, first, at int64, before Hash) (pg Page, err error) {
	le := binary.LittleEndian
	where := at - PageSize
	if sum := hashOf(p[:pageHashAt]); !bytes.Equal(sum[:], p[pageHashAt:]) {
		return pg, damaged("page %d, bytes %d to %d, is not as it was written", number, where, at-1)
	}
	extents, chunks := int(le.Uint32(p[16:])), int(le.Uint32(p[20:]))
	pg = Page{Number: int64(le.Uint64(p[8:])), Data: int64(le.Uint64(p[24:]))}
	copy(pg.Before[:], p[32:])
	switch {
	case string(p[:8]) != pageMagic:
		return pg, damaged("at byte %d stands no page", where)
	case pg.Number != number || pg.Before != before:
		return pg, damaged("page %d, at byte %d, is not of this backup, or not from there: it is number %d", number, where, pg.Number)
	case extents < 1 || extents > MaxExtents || chunks < 0 || chunks > MaxChunks, pg.Data < 0 || pg.Data%BlockSize != 0 || int64(chunks) != (pg.Data+ChunkSize-1)/ChunkSize:
		return pg, damaged("page %d gives %d extents, %d chunks and %d bytes, which do not agree", number, extents, chunks, pg.Data)
	}
	if err := pg.takeExtents(p[pageHead:pageHead+extents*extentSize], h, first); err != nil {
		return pg, err
	}
	rest := p[pageHead+extents*extentSize : pageHashAt]
	for range chunks {
		pg.Chunks = append(pg.Chunks, Hash(rest[:hashSize]))
		rest = rest[hashSize:]
	}
	if !allZero(rest) {
		return pg, unknown("a field of page %d that this build does not know is set", number)
	}
	return pg, nil
}

// takeExtents reads extents, which rise, lie within the disk, and have as many blocks of data as the page says.
func (pg *Page) takeExtents(p []byte, h Header, first int64) error {
	le, data := binary.LittleEndian, int64(0)
	for ; len(p) > 0; p = p[extentSize:] {
		e := Extent{Block: int64(le.Uint64(p)), Count: int64(le.Uint32(p[8:]))}
		kind := le.Uint32(p[12:])
		switch {
		case kind != kindData && kind != kindZero:
			return unknown("page %d has an extent of kind %d", pg.Number, kind)
		case e.Block < first || e.Count < 1 || e.Block > blocks(h.Size)-e.Count:
			return damaged("page %d has an extent of blocks %d to %d, where blocks %d to %d can follow", pg.Number, e.Block, e.Block+e.Count-1, first, blocks(h.Size)-1)
		}
		if e.Zero = kind == kindZero; !e.Zero {
			data += e.Count * BlockSize
		}
		pg.Extents = append(pg.Extents, e)
		first = e.End()
	}
	if data != pg.Data {
		return damaged("page %d gives %d bytes of data, and has extents of %d", pg.Number, pg.Data, data)
	}
	return nil
}

// chunk is how long a chunk is.
func (pg Page) chunk(i int) int { return int(min(ChunkSize, pg.Data-int64(i)*ChunkSize)) }

// Piece is a part of a chunk that stands in one piece on the disk: N bytes at At of the chunk are those at Off of the disk.
type Piece struct {
	At, N int
	Off   int64
}

// Pieces are the parts of all chunks, in their order: the number of a chunk, and what is in it.
func (pg Page) Pieces() iter.Seq2[int, []Piece] {
	return func(yield func(int, []Piece) bool) {
		i, fill, pieces := 0, 0, []Piece(nil)
		for _, e := range pg.Extents {
			if e.Zero {
				continue
			}
			for off, end := e.Block*BlockSize, e.End()*BlockSize; off < end; {
				n := int(min(end-off, int64(ChunkSize-fill)))
				pieces = append(pieces, Piece{fill, n, off})
				off, fill = off+int64(n), fill+n
				if fill == ChunkSize {
					if !yield(i, pieces) {
						return
					}
					i, fill, pieces = i+1, 0, nil
				}
			}
		}
		if fill > 0 {
			yield(i, pieces)
		}
	}
}
