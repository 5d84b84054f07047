package layer

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
)

// journaled is a layer on files with a journal, which can be opened again and again.
type journaled struct {
	t        *testing.T
	pool     pool.Pool
	header   Header
	journals *Journals
	opening  uuid.UUID
	told     []error
}

const journaledSize = 4 << 20

func newJournaled(t *testing.T) *journaled {
	t.Helper()
	p, err := pool.OpenFiles(t.TempDir())
	must(t, err)
	journals, err := OpenJournals(t.TempDir() + "/journal/store")
	must(t, err)
	w := &journaled{t: t, pool: p, header: Header{ID: uuid.New(), SectorSize: 512}, journals: journals, opening: uuid.New()}
	must(t, Create(t.Context(), p, w.header, journaledSize))
	return w
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func (w *journaled) open() *Layer {
	w.t.Helper()
	l, err := Open(w.t.Context(), w.pool, w.header, journaledSize, Options{Journals: w.journals, Opening: w.opening,
		Unjournaled: func(err error) { w.told = append(w.told, err) }})
	must(w.t, err)
	w.t.Cleanup(func() { _ = l.Close() })
	return l
}

func (w *journaled) path() string { return w.journals.path(w.header.ID, w.opening) }

func (w *journaled) read() ([]Change, error) {
	return w.journals.Read(w.pool, w.header.ID, w.opening, journaledSize)
}

// holds sees that the journal has just these changes.
func (w *journaled) holds(want ...Change) {
	w.t.Helper()
	if got, err := w.read(); err != nil || !slices.Equal(got, want) {
		w.t.Fatalf("the journal holds %v, not %v: %v", got, want, err)
	}
}

// refuses sees that the journal is refused for that reason.
func (w *journaled) refuses(is error, says string) {
	w.t.Helper()
	if got, err := w.read(); !errors.Is(err, is) || !strings.Contains(err.Error(), says) {
		w.t.Fatalf("read %v, and %v, which is not %q (%v)", got, err, says, is)
	}
}

// change edits the journal's file.
func (w *journaled) change(at int64, to ...byte) {
	w.t.Helper()
	f, err := os.OpenFile(w.path(), os.O_RDWR, 0)
	must(w.t, err)
	_, err = f.WriteAt(to, at)
	must(w.t, errors.Join(err, f.Close()))
}

func write(t *testing.T, l *Layer, block, blocks int64) {
	t.Helper()
	must(t, l.WriteNew(bytes.Repeat([]byte{7}, int(blocks*BlockSize)), block*BlockSize))
}

func zero(t *testing.T, l *Layer, block, blocks int64, reserve bool) {
	t.Helper()
	must(t, l.Zero(block*BlockSize, blocks*BlockSize, reserve))
}

// What no flush has covered stands in the journal, in its order, and nothing else does: not what a flush has made durable, nor data that is
// written over data.
func TestJournalHoldsWhatIsNotFlushed(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	w.holds()
	write(t, l, 3, 2)
	zero(t, l, 4, 1, false)
	zero(t, l, 9, 3, true)
	unflushed := []Change{{3, 2, Data}, {4, 1, Zero}, {9, 3, Reserved}}
	w.holds(unflushed...)
	write(t, l, 3, 1)
	_, err := l.Write(make([]byte, BlockSize), 3*BlockSize, false)
	must(t, err)
	zero(t, l, 9, 2, true)
	w.holds(unflushed...)
	must(t, l.Flush())
	w.holds()
	write(t, l, 4, 1)
	w.holds(Change{4, 1, Data})
	must(t, l.Close())
	w.holds(Change{4, 1, Data})
}

// TestJournalWhileAFlushRuns: what the flush takes off and what comes after it is all there until it has landed, and then what came after it.
func TestJournalWhileAFlushRuns(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	write(t, l, 1, 1)
	changes := l.blocks.takeOff()
	write(t, l, 2, 1)
	w.holds(Change{1, 1, Data}, Change{2, 1, Data})
	// It meets ENOSPC: what it took off is needed still, and so after the next one that does.
	l.blocks.land(changes, false)
	changes = l.blocks.takeOff()
	write(t, l, 3, 1)
	l.blocks.land(changes, false)
	w.holds(Change{1, 1, Data}, Change{2, 1, Data}, Change{3, 1, Data})
	must(t, l.Flush())
	// What the half with both kinds holds is durable, and may be there.
	write(t, l, 4, 1)
	got, err := w.read()
	must(t, err)
	if len(got) == 0 || got[len(got)-1] != (Change{4, 1, Data}) || slices.Contains(got, Change{1, 1, Data}) {
		t.Errorf("the journal holds %v", got)
	}
	must(t, l.Flush())
	w.holds()
}

// A failed sync takes the journal away, for good: what the kernel has dropped then, no journal may say is there.
func TestJournalEndsWithAFailedSync(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	write(t, l, 1, 1)
	_ = l.fail(syscall.EIO)
	w.refuses(os.ErrNotExist, "journal")
	if l.Journaled() {
		t.Error("it has one all the same")
	}
	_ = l.Flush()
	w.refuses(os.ErrNotExist, "journal")
}

// A journal that does not get room ends before the change is answered that it lacks; the layer goes on. After the next flush there is one again,
// which nobody believes before that flush has succeeded.
func TestJournalWithoutRoom(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	write(t, l, 1, 1)
	w.journals.size += journalsMost
	for i := range int64(firstPiece/entrySize + 1) {
		zero(t, l, 2, 1, i%2 == 0)
	}
	w.refuses(os.ErrNotExist, "journal")
	if len(w.told) != 1 || !errors.Is(w.told[0], syscall.ENOSPC) || l.Journaled() {
		t.Fatalf("told %v, journaled %v", w.told, l.Journaled())
	}
	w.journals.size -= journalsMost
	write(t, l, 5, 1)
	changes := l.blocks.takeOff()
	write(t, l, 6, 1)
	w.refuses(os.ErrNotExist, "journal")
	l.blocks.land(changes, true)
	w.holds(Change{6, 1, Data})
	if !l.Journaled() {
		t.Error("it has none")
	}
}

// A journal that gets long has a flush begin by itself; the longest does where all of them are long together.
func TestJournalAsksForAFlush(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	must(t, l.blocks.prepare(1, 1))
	for i := range int64(fullHalf / entrySize) {
		l.blocks.set(1, 1, []State{Zero, Reserved}[i%2])
	}
	for !l.blocks.clean() {
	}
	must(t, l.Flush())
	w.holds()
	other := newJournaled(t)
	other.journals = w.journals
	short := other.open()
	must(t, short.blocks.prepare(1, 1))
	for i := range int64(firstPiece/entrySize + 1) {
		l.blocks.set(1, 1, []State{Zero, Reserved}[i%2])
	}
	w.journals.size = journalsMost / 2 // as if there were many more
	short.blocks.set(1, 1, Zero)
	for !l.blocks.clean() {
	}
	if short.blocks.clean() {
		t.Error("the short one was flushed")
	}
}

// What a long journal took it gives back, in the file and in the count.
func TestJournalGivesBack(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	must(t, l.blocks.prepare(1, 1))
	for i := range int64(3 * laterPiece / entrySize) {
		l.blocks.set(1, 1, []State{Zero, Reserved}[i%2])
	}
	must(t, l.Flush())
	w.holds()
	var st syscall.Stat_t
	must(t, syscall.Stat(w.path(), &st))
	if w.journals.size != firstPiece || st.Blocks*512 > pageSize+firstPiece+64<<10 {
		t.Errorf("%d bytes are counted, %d allocated", w.journals.size, st.Blocks*512)
	}
	must(t, l.Close())
	if w.journals.size != 0 || len(w.journals.of) != 0 {
		t.Errorf("%d bytes are counted after all", w.journals.size)
	}
}

// A sealed layer keeps its empty journal until whoever knows of it removes that.
func TestJournalOfASealedLayer(t *testing.T) {
	w := newJournaled(t)
	l := w.open()
	write(t, l, 1, 1)
	must(t, l.Seal())
	w.holds()
	must(t, l.Close())
	w.holds()
	must(t, w.journals.Drop(w.header.ID, w.opening))
	must(t, w.journals.Drop(w.header.ID, w.opening))
	w.refuses(os.ErrNotExist, "journal")
}
