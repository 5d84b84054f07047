package backup

import (
	"bytes"
	"testing"

	"github.com/google/uuid"
)

// Whatever a header or a page holds, with its sum made to fit, is refused or makes sense.
func FuzzHeader(f *testing.F) {
	f.Add(header(mib).Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) != HeaderSize {
			p = append(p, make([]byte, HeaderSize)...)[:HeaderSize]
		}
		seal(p)
		h, err := DecodeHeader(p)
		if err != nil {
			return
		}
		if !bytes.Equal(h.Encode(), p) {
			t.Errorf("%+v is written otherwise than it was read", h)
		}
	})
}

func FuzzPage(f *testing.F) {
	h := header(1 << 30)
	f.Add(Page{Before: h.seed(), Extents: []Extent{{3, 2, false}, {9, 1, true}}, Chunks: []Hash{{1}}, Data: 2 * BlockSize}.Encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) != PageSize {
			p = append(p, make([]byte, PageSize)...)[:PageSize]
		}
		copy(p[32:], func() []byte { s := h.seed(); return s[:] }())
		seal(p)
		pg, err := decodePage(p, h, 0, 0, HeaderSize+PageSize, h.seed())
		if err != nil {
			return
		}
		if !bytes.Equal(pg.Encode(), p) {
			t.Error("the page is written otherwise than it was read")
		}
		var data int64
		for i, pieces := range pg.Pieces() {
			at := 0
			for _, pc := range pieces {
				if pc.At != at || pc.N <= 0 || pc.Off < 0 || pc.Off+int64(pc.N) > blocks(h.Size)*BlockSize {
					t.Fatalf("chunk %d has the piece %+v", i, pc)
				}
				at += pc.N
			}
			if at != pg.chunk(i) {
				t.Fatalf("chunk %d has pieces of %d bytes", i, at)
			}
			data += int64(at)
		}
		if data != pg.Data {
			t.Errorf("its pieces have %d bytes, and it says %d", data, pg.Data)
		}
	})
}

// Bytes of any kind behind a good beginning never pass for a backup.
func FuzzVerify(f *testing.F) {
	h := header(mib)
	id := uuid.NewSHA1(uuid.NameSpaceOID, []byte("fuzz")) // the same in each of its processes
	h.ID, h.Store, h.Disk = id, id, id
	m := makeBackup(f, h, Extent{0, 3, false}, Extent{100, 1, true})
	f.Add(m.bytes)
	f.Add(m.bytes[:HeaderSize+PageSize])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := verify(b); (err == nil) != bytes.Equal(b, m.bytes) {
			t.Errorf("%d bytes: %v", len(b), err)
		}
	})
}
