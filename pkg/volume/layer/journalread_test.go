package layer

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"

	"github.com/google/uuid"
)

// A journal of another run of the machine, of another opening, layer or files, or of another format is not believed.
func TestJournalOfSomethingElse(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	write(t, l, 1, 1)
	must(t, l.Close())
	was := w.journals.Boot
	w.journals.Boot = uuid.New()
	w.refuses(ErrStale, "another boot")
	w.journals.Boot = was
	w.holds(Change{1, 1, Data})

	opening := w.opening
	w.opening = uuid.New()
	w.refuses(os.ErrNotExist, "journal")
	must(t, os.Link(w.journals.path(w.header.ID, opening), w.path()))
	w.refuses(ErrStale, "another opening")
	w.opening = opening
	id := w.header.ID
	w.header.ID = uuid.New()
	must(t, Create(t.Context(), w.pool, w.header, journaledSize))
	must(t, os.Link(w.journals.path(id, opening), w.path()))
	w.refuses(ErrStale, "another layer")
	w.header.ID = id

	// The layer's files are put back from a copy.
	paths, err := w.pool.Segments(MapName(id))
	must(t, err)
	copied, err := os.ReadFile(paths[0])
	must(t, err)
	must(t, os.WriteFile(paths[0]+".copy", copied, 0o600))
	must(t, os.Rename(paths[0]+".copy", paths[0]))
	w.refuses(ErrStale, "other files")
}

func TestJournalOfAnotherFormat(t *testing.T) {
	for _, c := range []struct {
		at   int64
		to   []byte
		is   error
		says string
	}{
		{0, []byte("X"), ErrDamaged, "does not begin"},
		{8, []byte{2}, ErrVersion, "version 2"},
		{12, []byte{1}, ErrVersion, "flags 0x1"},
		{16, []byte{1, 2, 3}, ErrDamaged, "sum"},
		{200, []byte{1}, ErrDamaged, "sum"},
	} {
		w := newJournaled(t)
		must(t, w.open().Close())
		w.change(c.at, c.to...)
		w.refuses(c.is, c.says)
	}
	w := newJournaled(t)
	must(t, w.open().Close())
	page := append([]byte(nil), w.headerPage()...)
	page[200] = 1
	binary.LittleEndian.PutUint32(page[pageSize-4:], crc32.Checksum(page[:pageSize-4], castagnoli))
	w.change(0, page...)
	w.refuses(ErrVersion, "does not know")
	must(t, os.Truncate(w.path(), 100))
	w.refuses(ErrDamaged, "header")
}

func (w *journaled) headerPage() []byte {
	b, err := os.ReadFile(w.path())
	must(w.t, err)
	return b[:pageSize]
}

// A bit that flips anywhere in an entry, the last one too, is damage and never another end. What was not written whole at the end was not answered.
func TestJournalFlippedAndTorn(t *testing.T) {
	const entries = 3
	seed := uint32(5)
	var whole []byte
	for i := range uint64(entries) {
		whole = appendEntry(whole, makeEntry(seed, 7+i, Change{int64(i), 2, Data}))
	}
	rest := make([]byte, 2*entrySize)
	got, err := parseHalf(append(bytes.Clone(whole), rest...), seed, 100)
	if err != nil || got.first != 7 || len(got.changes) != entries || got.torn {
		t.Fatalf("%+v, %v", got, err)
	}
	for bit := range len(whole) * 8 {
		p := append(bytes.Clone(whole), rest...)
		p[bit/8] ^= 1 << (bit % 8)
		if got, err := parseHalf(p, seed, 100); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d: %v, %+v", bit, err, got)
		}
	}
	for words := range 4 { // the words of the last entry that were written; the last of them proves the others
		p := append(bytes.Clone(whole[:(entries-1)*entrySize+8*words]), make([]byte, entrySize-8*words+len(rest))...)
		got, err := parseHalf(p, seed, 100)
		if err != nil || len(got.changes) != entries-1 || got.torn != (words > 0) {
			t.Errorf("%d words: %+v, %v", words, got, err)
		}
		p[len(p)-1] = 1
		if _, err := parseHalf(p, seed, 100); !errors.Is(err, ErrDamaged) {
			t.Errorf("it goes on behind %d words: %v", words, err)
		}
	}
}

func appendEntry(p []byte, e entry) []byte {
	for _, word := range e {
		p = binary.LittleEndian.AppendUint64(p, word)
	}
	return p
}

func TestJournalOfNonsense(t *testing.T) {
	for _, c := range []struct {
		what string
		list []entry
	}{
		{"another journal's", []entry{makeEntry(6, 1, Change{1, 1, Data})}},
		{"a number that is left out", []entry{makeEntry(5, 1, Change{1, 1, Data}), makeEntry(5, 3, Change{1, 1, Data})}},
		{"absent", []entry{makeEntry(5, 1, Change{1, 1, Absent})}},
		{"no blocks", []entry{makeEntry(5, 1, Change{1, 0, Data})}},
		{"fewer than none", []entry{makeEntry(5, 1, Change{1, -1, Data})}},
		{"past the end", []entry{makeEntry(5, 1, Change{99, 2, Data})}},
		{"far past the end", []entry{makeEntry(5, 1, Change{1 << 60, 1, Data})}},
		{"too many", []entry{makeEntry(5, 1, Change{1, 1 << 62, Data})}},
	} {
		var p []byte
		for _, e := range c.list {
			p = appendEntry(p, e)
		}
		if got, err := parseHalf(p, 5, 100); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v, %+v", c.what, err, got)
		}
		if got, err := parseHalf(p[:len(p)-1], 5, 100); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s, cut off: %v, %+v", c.what, err, got)
		}
	}
}

// journalOf is a journal as it may be found: two halves, of which bytes are given.
func journalOf(h journalHeader, first, second []byte) *bytes.Reader {
	p := append(h.encode(), make([]byte, halfSize)...)
	copy(p[pageSize:], first)
	return bytes.NewReader(append(p, second...))
}

// The halves of a journal follow each other, whichever is the older; a gap between them, or within one, is damage. A half that was being emptied
// is empty.
func TestJournalHalves(t *testing.T) {
	h := journalHeader{Boot: uuid.New(), layer: testID, Opening: uuid.New()}
	half := func(from, n int) (p []byte) {
		for i := range n {
			p = appendEntry(p, makeEntry(h.seed(), uint64(from+i), Change{int64(from + i), 1, Data}))
		}
		return p
	}
	torn := func(p []byte) []byte { return append(append(p, 9), make([]byte, 2*entrySize-1)...) }
	emptied := append(make([]byte, entrySize), half(1, 4)[entrySize:]...)
	later := append(make([]byte, firstPiece), half(1, 9)...)
	gap := append(half(1, 2), make([]byte, 3*readStep)...)
	for _, c := range []struct {
		what          string
		first, second []byte
		changes       int
		is            error
	}{
		{"nothing", nil, nil, 0, nil},
		{"one", half(1, 3), nil, 3, nil},
		{"the other", nil, half(1, 3), 3, nil},
		{"both", half(1, 3), half(4, 2), 5, nil},
		{"the other way round", half(4, 2), half(1, 3), 5, nil},
		{"one torn at its end", half(3, 2), torn(half(5, 1)), 3, nil},
		{"a gap between them", half(1, 3), half(5, 2), 0, ErrDamaged},
		{"the same twice", half(1, 3), half(3, 2), 0, ErrDamaged},
		{"the older one torn", torn(half(1, 2)), half(3, 1), 0, ErrDamaged},
		{"one that was being emptied", emptied, half(5, 2), 2, nil},
		{"one of which the first piece is emptied", later, half(10, 2), 2, nil},
		{"a gap in one", append(gap, half(3, 1)...), nil, 0, ErrDamaged},
	} {
		got, err := readJournal(journalOf(h, c.first, c.second), h, 1000)
		if !errors.Is(err, c.is) || len(got) != c.changes {
			t.Errorf("%s: %v, %v", c.what, got, err)
		}
		if !slices.IsSortedFunc(got, func(a, b Change) int { return int(a.Block - b.Block) }) {
			t.Errorf("%s: out of order: %v", c.what, got)
		}
	}
}

// FuzzJournal: whatever a journal holds, it is read or refused, and what is read lies within the layer and reads the same once more.
func FuzzJournal(f *testing.F) {
	h := journalHeader{Boot: testID, layer: testID, Opening: testID}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 8 {
		var halves [2][]byte
		number := uint64(1)
		for i := range halves {
			for range rng.IntN(5) {
				halves[i] = appendEntry(halves[i], makeEntry(h.seed(), number, Change{rng.Int64N(40), 1 + rng.Int64N(9), State(rng.IntN(4))}))
				number++
			}
		}
		f.Add(halves[0], halves[1])
	}
	f.Fuzz(func(t *testing.T, first, second []byte) {
		if len(first) > halfSize || len(second) > halfSize {
			return
		}
		a, err := parseHalf(first, h.seed(), 48)
		if err != nil && !errors.Is(err, ErrDamaged) {
			t.Fatal(err)
		}
		for _, c := range a.changes {
			if err == nil && (c.Block < 0 || c.Blocks < 1 || c.Block+c.Blocks > 48 || c.State == Absent) {
				t.Fatalf("%+v", c)
			}
		}
		b, err2 := parseHalf(second, h.seed(), 48)
		all, joined := join(a, b)
		if err == nil && err2 == nil && joined == nil && len(all) != len(a.changes)+len(b.changes) {
			t.Fatalf("of %d and %d there are %d", len(a.changes), len(b.changes), len(all))
		}
	})
}

func TestJournalCutOff(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	must(t, l.blocks.prepare(0, 1))
	l.blocks.set(0, 1, Data)
	for _, size := range []int64{journalSize - 1, pageSize + halfSize, pageSize + entrySize, pageSize, 0} {
		must(t, os.Truncate(w.path(), size))
		if changes, err := w.read(); !errors.Is(err, ErrDamaged) {
			t.Errorf("cut to %d: %v, %v", size, changes, err)
		}
	}
}

func TestJournalsOfOthers(t *testing.T) {
	for what, plant := range map[string]func(dir string) error{
		"a symlink":      func(dir string) error { return os.Symlink(t.TempDir(), dir) },
		"open to others": func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o770)) },
		"somebody's":     func(dir string) error { return errors.Join(os.Mkdir(dir, 0o700), os.Chown(dir, 65534, -1)) },
	} {
		for _, below := range []string{"/journal", "/journal/store"} {
			if what == "somebody's" && os.Geteuid() != 0 {
				continue
			}
			dir := t.TempDir()
			must(t, os.MkdirAll(filepath.Dir(dir+below), 0o700))
			must(t, plant(dir+below))
			if _, err := OpenJournals(dir + "/journal/store"); !errors.Is(err, syscall.EPERM) {
				t.Errorf("%s as %s: %v", what, below, err)
			}
		}
	}
}

// Journals that nobody keeps go, and nothing else.
func TestSweepJournals(t *testing.T) {
	w := newJournaled(t)
	must(t, w.open().Close())
	for _, name := range []string{"a", w.header.ID.String(), uuid.NewString() + "." + uuid.NewString(), w.header.ID.String() + "." + w.opening.String() + earlyName} {
		must(t, os.WriteFile(w.journals.Dir+"/"+name, nil, 0o600))
	}
	must(t, w.journals.Sweep(func(layer, opening uuid.UUID) bool { return layer == w.header.ID && opening == w.opening }))
	w.holds()
	left, err := os.ReadDir(w.journals.Dir)
	if err != nil || len(left) != 1 {
		t.Errorf("left %v, %v", left, err)
	}
}

// A journal says no more than what the pool has kept: a hole where data should be is damage before anything is made durable.
func TestJournalOverAHole(t *testing.T) {
	w := newJournaled(t)
	w.header.Encrypted, w.header.ID = true, uuid.New()
	must(t, Create(t.Context(), w.pool, w.header, journaledSize))
	l := w.open()
	write(t, l, 3, 2)
	must(t, l.data.Discard(4*BlockSize, BlockSize))
	must(t, l.Close())
	changes, err := w.read()
	must(t, err)
	if _, err := Open(t.Context(), w.pool, w.header, journaledSize, Options{Unclean: true, Replay: changes}); !errors.Is(err, ErrDamaged) {
		t.Errorf("opened: %v", err)
	}
	l, err = Open(t.Context(), w.pool, w.header, journaledSize, Options{})
	must(t, err)
	defer l.Close()
	if state, _, err := l.Run(3*BlockSize, 4*BlockSize, true); state != Absent || err != nil {
		t.Errorf("block 3 is %v, %v", state, err)
	}
}

func makeEntry(seed uint32, number uint64, c Change) entry {
	e := entry{uint64(c.Block)<<2 | uint64(c.State), uint64(c.Blocks), number}
	e[3] = proof(seed, appendEntry(nil, e))
	return e
}
