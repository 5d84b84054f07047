package backup

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
)

const mib = 1 << 20

// What was written is what is handed out again, every byte once, and what is zeros or not named stays so.
func TestWhatIsWrittenComesBack(t *testing.T) {
	for name, extents := range map[string][]Extent{
		"empty":      nil,
		"one block":  {{5, 1, false}},
		"all":        {{0, 2048, false}},
		"mixed":      {{0, 3, false}, {3, 2, true}, {7, 700, false}, {707, 1, false}, {2000, 48, true}},
		"zeros only": {{0, 2048, true}},
		"fragments":  fragments(4500),
	} {
		h := header(8 * mib)
		if name == "fragments" {
			h.Size = 9000 * BlockSize
		}
		m := makeBackup(t, h, extents...)
		v, err := verify(m.bytes)
		if err != nil || v.Manifest != m.Manifest || v.Length() != int64(len(m.bytes)) {
			t.Fatalf("%s: %v, %+v", name, err, v)
		}
		got, mu := make([]byte, h.Size), sync.Mutex{}
		copy(got, bytes.Repeat([]byte{0xee}, len(got)))
		seen := map[int64]bool{}
		err = Restore(t.Context(), bytes.NewReader(m.bytes), v, func(p []byte, off int64) error {
			mu.Lock()
			defer mu.Unlock()
			for at := off; at < off+int64(len(p)); at += BlockSize {
				if seen[at] {
					return fmt.Errorf("the block at %d comes twice", at)
				}
				seen[at] = true
			}
			copy(got[off:], p)
			return nil
		}, func(off, n int64) error { clear(got[off : off+n]); return nil }, func(int64) {})
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := bytes.Repeat([]byte{0xee}, int(h.Size))
		for _, e := range extents {
			part := want[e.Block*BlockSize : e.End()*BlockSize]
			if clear(part); !e.Zero {
				_ = fillByBlock(part, e.Block*BlockSize)
			}
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: what comes back differs", name)
		}
	}
}

// fragments are n blocks of data with a gap behind each: more than a page has room for.
func fragments(n int) (list []Extent) {
	for i := range n {
		list = append(list, Extent{int64(2 * i), 1, i%5 == 4})
	}
	return list
}

// The worked sizes of docs/backup-format.md.
func TestWorkedSizes(t *testing.T) {
	h := header(10 << 30)
	h.Pages, h.Data = 1, 1<<30
	if h.Length() != 1_073_815_552 {
		t.Error(h.Length())
	}
	if empty := header(10 << 30); empty.Length() != 8192 {
		t.Error(empty.Length())
	}
	if m := makeBackup(t, header(64*mib), fragments(4500)...); m.Pages != 3 {
		t.Errorf("%d pages", m.Pages)
	}
}

// Each flipped byte is found, and its place named.
func TestEachFlippedByteIsFound(t *testing.T) {
	m := makeBackup(t, header(8*mib), Extent{0, 300, false}, Extent{400, 10, true})
	for at := range m.bytes {
		inData := at >= HeaderSize+PageSize && at < int(m.Body())
		if dense := at < HeaderSize+pageHead+40 || at >= int(m.Body()) && at < int(m.Body())+recordAt+16; !dense && at%16007 != 0 {
			continue // one would be like all others
		}
		m.bytes[at] ^= 0x10
		_, err := verify(m.bytes)
		m.bytes[at] ^= 0x10
		wantDamaged(t, fmt.Sprint("byte ", at), err)
		if inData && err != nil && !strings.Contains(err.Error(), fmt.Sprintf("chunk %d of page 0", (at-HeaderSize-PageSize)/ChunkSize)) {
			t.Errorf("byte %d: %v does not name its chunk", at, err)
		}
	}
}

func TestEachMissingByteIsFound(t *testing.T) {
	m := makeBackup(t, header(8*mib), Extent{0, 300, false})
	for _, n := range []int{0, 1, HeaderSize - 1, HeaderSize, HeaderSize + 1, HeaderSize + PageSize, HeaderSize + PageSize + 5, int(m.Body()) - 1, int(m.Body()), len(m.bytes) - 1} {
		_, err := verify(m.bytes[:n])
		wantDamaged(t, fmt.Sprint(n, " bytes"), err)
		if !strings.Contains(err.Error(), fmt.Sprintf("ends at byte %d", n)) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	_, err := verify(append(bytes.Clone(m.bytes), 0))
	wantDamaged(t, "one more byte", err)
}

// What a forger can do without the key, with all sums made to fit.
func TestForgeriesAreFound(t *testing.T) {
	h := header(16 * mib)
	m := makeBackup(t, h, Extent{0, 600, false}, Extent{700, 5, false})
	other := makeBackup(t, h, Extent{0, 600, false}, Extent{701, 5, false})
	twin := h
	twin.ID = uuid.New()
	stranger := makeBackup(t, twin, Extent{0, 600, false}, Extent{700, 5, false})
	const page, data = HeaderSize, HeaderSize + PageSize
	for name, forge := range map[string]func(b []byte){
		"chunks swapped": func(b []byte) {
			copy(b[data:], m.bytes[data+mib:data+2*mib])
			copy(b[data+mib:], m.bytes[data:data+mib])
		},
		"chunks swapped with their hashes": func(b []byte) {
			copy(b[data:], m.bytes[data+mib:data+2*mib])
			copy(b[data+mib:], m.bytes[data:data+mib])
			hashes := b[page+pageHead+2*extentSize:]
			first := bytes.Clone(hashes[:hashSize])
			copy(hashes, hashes[hashSize:2*hashSize])
			copy(hashes[hashSize:], first)
			seal(b[page:data])
		},
		"another body":             func(b []byte) { copy(b, other.bytes[:other.Body()]) },
		"another page":             func(b []byte) { copy(b[page:], other.bytes[page:data]) },
		"the page of another":      func(b []byte) { copy(b[page:], stranger.bytes[page:data]) },
		"another trailer":          func(b []byte) { copy(b[m.Body():], other.bytes[other.Body():]) },
		"the trailer of another":   func(b []byte) { copy(b[m.Body():], stranger.bytes[stranger.Body():]) },
		"another name":             func(b []byte) { b[288] = 'M'; seal(b[:HeaderSize]) },
		"another time":             func(b []byte) { b[120]++; seal(b[:HeaderSize]) },
		"an unknown flag":          func(b []byte) { b[12] |= 4; seal(b[:HeaderSize]) },
		"plain":                    func(b []byte) { b[12] = 0; seal(b[:HeaderSize]) },
		"an unknown field":         func(b []byte) { b[500] = 1; seal(b[:HeaderSize]) },
		"a larger disk":            func(b []byte) { b[117] = 4; seal(b[:HeaderSize]) },
		"more pages":               func(b []byte) { b[143] = 0x7f; seal(b[:HeaderSize]) },
		"more data":                func(b []byte) { b[151] = 0x7f; seal(b[:HeaderSize]) },
		"an extent twice":          func(b []byte) { b[page+pageHead+extentSize] = 0; b[page+pageHead+extentSize+1] = 0; seal(b[page:data]) },
		"an extent past the end":   func(b []byte) { b[page+pageHead+extentSize+3] = 1; seal(b[page:data]) },
		"an extent of nothing":     func(b []byte) { b[page+pageHead+extentSize+8] = 0; seal(b[page:data]) },
		"an extent of a new kind":  func(b []byte) { b[page+pageHead+12] = 3; seal(b[page:data]) },
		"zeros in place of data":   func(b []byte) { b[page+pageHead+12] = 2; seal(b[page:data]) },
		"more chunks than allowed": func(b []byte) { b[page+22] = 1; seal(b[page:data]) },
		"more extents":             func(b []byte) { b[page+17] = 0xff; seal(b[page:data]) },
		"another record":           func(b []byte) { b[int(m.Body())+recordAt] = 'x' },
	} {
		b := bytes.Clone(m.bytes)
		if forge(b); bytes.Equal(b, m.bytes) {
			t.Fatalf("%s changes nothing", name)
		}
		_, err := verify(b)
		wantDamaged(t, name, err)
	}
}

// A signature counts under the pinned key alone, whatever key stands in the file.
func TestOnlyThePinnedKeyCounts(t *testing.T) {
	mine := ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
	m := makeBackup(t, header(mib), Extent{0, 3, false})
	forged := m.Trailer
	forged.Public = public(mine)
	tail, err := forged.Encode(signBy(mine))
	if err != nil {
		t.Fatal(err)
	}
	b := append(bytes.Clone(m.bytes[:m.Body()]), tail...)
	if _, err := verifyBy(b, public(mine)); err != nil {
		t.Fatal(err)
	}
	_, err = verify(b)
	wantDamaged(t, "a forger's key", err)
	copy(b[m.Body()+80:], public(signer))
	_, err = verify(b)
	wantDamaged(t, "a forger's signature under our key's name", err)
	if _, err := forged.Encode(signBy(signer)); err == nil {
		t.Error("a trailer names a key that did not sign it")
	}
}

// A version that this build does not know is told from damage.
func TestUnknownVersionIsRefused(t *testing.T) {
	m := makeBackup(t, header(mib), Extent{0, 3, false})
	b := bytes.Clone(m.bytes)
	b[8] = 2
	_, err := verify(b)
	wantDamaged(t, "version 2", err)
	if !strings.Contains(err.Error(), "version 2") {
		t.Error(err)
	}
}

// A time that no date in text can name is refused though it is signed: nobody could keep a record of it.
func TestTimesThatNoClockShowsAreRefused(t *testing.T) {
	for seconds, want := range map[int64]bool{0: true, lastSecond: true, -1: false, lastSecond + 1: false, math.MinInt64: false} {
		h := header(mib)
		h.Taken = time.Unix(seconds, 0)
		_, err := verify(makeBackup(t, h, Extent{0, 3, false}).bytes)
		if (err == nil) != want {
			t.Errorf("second %d: %v", seconds, err)
		}
		if err != nil {
			wantDamaged(t, "a time", err)
		}
	}
}

// A child stands on just the parent that it names.
func TestChainIsHeldTogether(t *testing.T) {
	parent := makeBackup(t, header(mib), Extent{0, 3, false})
	h := parent.Header
	h.ID, h.Parent, h.ParentManifest, h.Depth, h.Size = uuid.New(), parent.ID, parent.Manifest, 1, 2*mib
	child := makeBackup(t, h, Extent{1, 1, true})
	v, err := verify(child.bytes)
	if err != nil {
		t.Fatal(err)
	}
	if err := Follows(v, parent.Verified); err != nil {
		t.Error(err)
	}
	for name, change := range map[string]func(p *Verified){
		"another parent": func(p *Verified) { p.ID = uuid.New() }, "an older state": func(p *Verified) { p.Manifest[0]++ },
		"another disk": func(p *Verified) { p.Disk = uuid.New() }, "another store": func(p *Verified) { p.Store = uuid.New() },
		"plain": func(p *Verified) { p.Encrypted = false }, "sectors": func(p *Verified) { p.SectorSize = 4096 },
		"depth": func(p *Verified) { p.Depth = 1 }, "larger": func(p *Verified) { p.Size = 4 * mib },
	} {
		p := parent.Verified
		change(&p)
		wantDamaged(t, name, Follows(v, p))
	}
}

// A file that is changed after it was verified gives nothing that was changed.
func TestRestoreVerifiesAgain(t *testing.T) {
	m := makeBackup(t, header(8*mib), Extent{0, 600, false})
	v, err := verify(m.bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{300, HeaderSize + 40, HeaderSize + PageSize + 5, HeaderSize + PageSize + mib} {
		b := bytes.Clone(m.bytes)
		b[at] ^= 1
		err := Restore(t.Context(), bytes.NewReader(b), v, func(p []byte, off int64) error {
			want := make([]byte, len(p))
			_ = fillByBlock(want, off)
			if !bytes.Equal(p, want) {
				t.Errorf("changed at %d, it hands out what was changed", at)
			}
			return nil
		}, func(int64, int64) error { return nil }, func(int64) {})
		wantDamaged(t, fmt.Sprint("changed at ", at), err)
	}
}

// What fails is told, and an end that is asked for comes soon.
func TestFailuresEndIt(t *testing.T) {
	bad := errors.New("bad block")
	f := &sink{}
	w := NewWriter(t.Context(), f, header(8*mib), func(_ []byte, off int64) error {
		if off > mib {
			return bad
		}
		return nil
	}, func(int64) {})
	defer w.Close()
	if err := w.Add(Extent{0, 2048, false}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := w.Finish(); !errors.Is(err, bad) {
		t.Error(err)
	}
	if err := w.Add(Extent{5, 1, false}); err == nil {
		t.Error("an extent before the last one is taken")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	m := makeBackup(t, header(8*mib), Extent{0, 600, false})
	if _, err := Verify(ctx, bytes.NewReader(m.bytes), public(signer), nil); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := Restore(ctx, bytes.NewReader(m.bytes), m.Verified, nil, nil, func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
}

type sink struct{}

func (*sink) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// Random extents come back whole.
func TestRandomExtents(t *testing.T) {
	for seed := range uint64(5) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var extents []Extent
		for at := int64(0); ; {
			at += rng.Int64N(30)
			e := Extent{at, 1 + rng.Int64N(400), rng.IntN(3) == 0}
			if at = e.End(); at > 4096 {
				break
			}
			extents = append(extents, e)
		}
		m := makeBackup(t, header(16*mib), extents...)
		v, err := verify(m.bytes)
		if err != nil {
			t.Fatal(seed, err)
		}
		err = Restore(t.Context(), bytes.NewReader(m.bytes), v, func(p []byte, off int64) error {
			want := make([]byte, len(p))
			_ = fillByBlock(want, off)
			if !bytes.Equal(p, want) {
				return fmt.Errorf("%d bytes at %d differ", len(p), off)
			}
			return nil
		}, func(int64, int64) error { return nil }, func(int64) {})
		if err != nil {
			t.Error(seed, err)
		}
	}
}
