package attest

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/secret"
	"nbdcrypt/xts"
)

// keyed is a layer's key as tests need it. It stays in key memory.
type keyed struct {
	dek, schedules *secret.Key
	marks          *Marks
}

func newKey(t testing.TB, layer string) (k keyed) {
	t.Helper()
	var err error
	k.dek, err = secret.Random(xts.KeySize, secret.Purpose{})
	must(t, err)
	t.Cleanup(k.dek.Destroy)
	k.schedules, err = secret.New(xts.Size, secret.Purpose{})
	must(t, err)
	t.Cleanup(k.schedules.Destroy)
	_, err = xts.New(k.schedules.Bytes(), k.dek.Bytes())
	must(t, err)
	k.marks, err = Mark(layer, k.schedules.Bytes())
	must(t, err)
	return k
}

// windows makes every window that a search must know, in another way than the package does: of all 16-byte pieces of the
// schedules those that differ. It leaves garbage on the heap, so a test that calls it searches no more than what it planted.
func (k keyed) windows() (list []window) {
	for at := 0; at < xts.Size; at += 16 {
		if w := window(k.schedules.Bytes()[at:]); !slices.Contains(list, w) {
			list = append(list, w)
		}
	}
	for _, w := range list {
		for i := 0; i < len(w); i += 4 {
			slices.Reverse(w[i : i+4])
		}
		list = append(list, w)
	}
	for piece := range slices.Chunk([]byte(hex.EncodeToString(k.dek.Bytes())), 16) {
		list = append(list, window(piece))
	}
	return list
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func noProgress(int64, int64) {}

// through walks through some memory and returns what it finds.
func through(t testing.TB, marks []*Marks, spans ...secret.Span) (found []place) {
	t.Helper()
	p, err := thePrinter()
	must(t, err)
	w, err := newWalk(p, newSieve(marks))
	must(t, err)
	defer w.work.Destroy()
	for _, s := range spans {
		for at := s.From; at < s.To; {
			at, err = w.piece(at, s.To)
			must(t, err)
			found = append(found, w.found...)
		}
	}
	return found
}

func spanOf(b []byte) secret.Span {
	from := uintptr(unsafe.Pointer(&b[0]))
	return secret.Span{From: from, To: from + uintptr(len(b))}
}

const slot = 48

// plant writes each window at each alignment into b, between noise, and returns which is where.
func plant(b []byte, windows []window) (at map[uintptr]int) {
	rand.Read(b)
	at = map[uintptr]int{}
	for i, w := range windows {
		for shift := range 16 {
			n := (i*16+shift)*slot + shift
			copy(b[n:], w[:])
			at[uintptr(unsafe.Pointer(&b[n]))] = i
		}
	}
	return at
}

const plantSize = 94 * 16 * slot

var (
	inData = [plantSize]byte{0: 1}
	inBSS  [plantSize]byte
)

// TestRuleA13_EveryFormIsFoundEverywhere has every window at every alignment: on the heap, on a stack, among variables, in a
// mapping of its own.
func TestRuleA13_EveryFormIsFoundEverywhere(t *testing.T) {
	k := newKey(t, "layer")
	windows := k.windows()
	if len(windows) != len(k.marks.prints) || len(windows) != 94 {
		t.Fatalf("%d windows, %d prints", len(windows), len(k.marks.prints))
	}
	mapped, err := unix.Mmap(-1, 0, plantSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	defer unix.Munmap(mapped)
	look := func(t *testing.T, b []byte) {
		planted := plant(b, windows)
		for _, p := range through(t, []*Marks{k.marks}, spanOf(b)) {
			// The package has them in the same order: that of the schedules.
			if i, is := planted[p.address]; !is || i != p.trace.index {
				t.Errorf("%s was found at %x", k.marks.what(p.trace.index), p.address)
			}
			delete(planted, p.address)
		}
		for at, i := range planted {
			t.Errorf("%s at …%x was not found", k.marks.what(i), at%16)
		}
	}
	t.Run("heap", func(t *testing.T) { look(t, make([]byte, plantSize)) })
	t.Run("data", func(t *testing.T) { look(t, inData[:]) })
	t.Run("bss", func(t *testing.T) { look(t, inBSS[:]) })
	t.Run("mmap", func(t *testing.T) { look(t, mapped) })
	t.Run("stack", func(t *testing.T) {
		var here [plantSize]byte
		planted := plant(here[:], windows)
		at := uintptr(unsafe.Pointer(&here))
		if found := through(t, []*Marks{k.marks}, secret.Span{From: at, To: at + plantSize}); len(found) != len(planted) {
			t.Errorf("%d of %d found", len(found), len(planted))
		}
	})
}

// What lies across pieces, and across mappings that touch, is found; a page that can't be read does not hide what is beside it.
func TestRuleA13_AcrossPiecesAndMappings(t *testing.T) {
	k := newKey(t, "layer")
	page := unix.Getpagesize()
	const size = 4 * pieceSize
	b, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	must(t, err)
	defer unix.Munmap(b)
	w := k.windows()[20]
	for n := pieceSize - 20; n < pieceSize+4; n++ {
		clear(b)
		copy(b[n:], w[:])
		whole, from := spanOf(b), uintptr(unsafe.Pointer(&b[0]))
		split := from + pieceSize
		for _, spans := range [][]secret.Span{{whole}, {{From: from, To: split}, {From: split, To: whole.To}}} {
			found := through(t, []*Marks{k.marks}, spans...)
			if len(found) != 1 || found[0].address != from+uintptr(n) {
				t.Errorf("at %d: found %+v", n, found)
			}
		}
	}
	copy(b[2*pieceSize-16:], w[:])
	copy(b[2*pieceSize+page:], w[:])
	must(t, unix.Mprotect(b[2*pieceSize:][:page], unix.PROT_NONE))
	if found := through(t, []*Marks{k.marks}, spanOf(b)); len(found) != 3 {
		t.Errorf("beside a page that can't be read: %+v", found)
	}
}

// searchAll is a whole search that must go well.
func searchAll(t testing.TB, marks ...*Marks) Report {
	t.Helper()
	r, err := Search(t.Context(), marks, noProgress)
	must(t, err)
	return r
}

// TestRuleA13_TheRegionIsNamed plants one window in memory of each kind.
func TestRuleA13_TheRegionIsNamed(t *testing.T) {
	k := newKey(t, "layer-1")
	mapped, err := unix.Mmap(-1, 0, 1<<16, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_SHARED)
	must(t, err)
	defer unix.Munmap(mapped)
	planted := map[string][]byte{
		"heap": make([]byte, 100), ".test": inData[:], ".test: its variables": inBSS[len(inBSS)-100:], "zero": mapped,
	}
	for _, b := range planted {
		copy(b[77:], k.schedules.Bytes()[:len(window{})])
	}
	r := searchAll(t, k.marks)
	if r.Found != len(planted) || len(r.Hits) != len(planted) {
		t.Errorf("%+v", r)
	}
	for region, b := range planted {
		if !slices.ContainsFunc(r.Hits, func(h Hit) bool {
			return strings.HasSuffix(strings.TrimSuffix(strings.ToLower(h.Region), " (deleted)"), region) && h.Layer == "layer-1" &&
				h.What == "round key 0 of the data key, encryption" && h.Address == uintptr(unsafe.Pointer(&b[77]))
		}) {
			t.Errorf("%s: not in %+v", region, r.Hits)
		}
		clear(b)
	}
}

// TestRuleA13_NothingIsFound while others allocate, grow stacks and collect garbage.
func TestRuleA13_NothingIsFound(t *testing.T) {
	k := newKey(t, "layer")
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	for i := range 3 {
		go churn(ctx, i)
	}
	for range 2 {
		if r := searchAll(t, k.marks); r.Found != 0 || len(r.Hits) != 0 || r.Regions < 5 || r.Bytes < 1<<20 || r.Seconds <= 0 {
			t.Errorf("%+v", r)
		}
	}
}

func churn(ctx context.Context, i int) {
	var kept [][]byte
	for n := 0; ctx.Err() == nil; n++ {
		kept = append(kept, bytes.Repeat([]byte{byte(n)}, 1<<(10+n%8)))
		if len(kept) > 100 {
			kept = nil
			runtime.GC()
		}
		grow(n % 200)
		fmt.Fprint(io.Discard, i, n)
	}
}

func grow(n int) (sum byte) {
	var b [1000]byte
	if n > 0 {
		b[n%1000] = grow(n - 1)
	}
	for _, x := range b {
		sum += x
	}
	return sum
}

// TestRuleA13_BlindSearchFails takes the control away.
func TestRuleA13_BlindSearchFails(t *testing.T) {
	s, err := newSearch(nil)
	must(t, err)
	defer s.close()
	clear(s.control.bytes[:])
	must(t, s.everywhere(t.Context(), noProgress))
	if err := s.verdict(0); !errors.Is(err, errBlind) {
		t.Errorf("without its control: %v", err)
	}
	s.seen = true
	if err := s.verdict(s.report.Bytes + 1); !errors.Is(err, errBlind) {
		t.Errorf("having read less than there is: %v", err)
	}
	if err := s.verdict(s.report.Bytes); err != nil {
		t.Error(err)
	}
}

// TestRuleA13_KeyMemoryMustBeZero: what was written to a key after it was destroyed shows, whosever it was.
func TestRuleA13_KeyMemoryMustBeZero(t *testing.T) {
	key := newKey(t, "layer")
	k, err := secret.New(100, secret.Purpose{})
	must(t, err)
	late := k.Bytes()
	k.Destroy()
	late[3] = 1
	r := searchAll(t, key.marks)
	late[3] = 0
	if r.Found != 1 || r.Hits[0] != (Hit{What: "bytes that are not zero: 1", Region: keyMemory}) {
		t.Errorf("%+v", r)
	}
	if of := r.about(nil); of.Found != 1 || len(of.Hits) != 1 {
		t.Errorf("told to each: %+v", of)
	}
}

func TestSearchEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, err := Search(ctx, nil, func(done, total int64) {
		if done <= 0 || done > total {
			t.Errorf("%d of %d", done, total)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	for _, k := range secret.List() {
		if k.Kind == "attest" && k.For != "knowing the traces of wiped keys" {
			t.Errorf("left in key memory: %+v", k)
		}
	}
}

func TestMarkRefuses(t *testing.T) {
	for _, n := range []int{0, Schedules - 1, Schedules + 1} {
		if _, err := Mark("layer", make([]byte, n)); err == nil {
			t.Errorf("%d bytes of schedules were taken", n)
		}
	}
	if Schedules != xts.Size {
		t.Errorf("schedules of a layer have %d bytes here and %d in xts", Schedules, xts.Size)
	}
}

func TestHitsAreCappedNotTheCount(t *testing.T) {
	var r Report
	for range 99 {
		r.note(Hit{Layer: "a", Region: "the Go heap"})
	}
	r.note(Hit{Layer: "a", Region: "[stack]"})
	r.note(Hit{Layer: "b"})
	a, b := &Marks{layer: "a"}, &Marks{layer: "b"}
	if of := r.about([]*Marks{a}); of.Found != 100 || len(of.Hits) != maxHits+1 {
		t.Errorf("a: %+v", of)
	}
	if of := r.about([]*Marks{b}); of.Found != 1 || len(of.Hits) != 1 {
		t.Errorf("b: %+v", of)
	}
	if of := r.about(nil); of.Found != 0 || len(of.Hits) != 0 {
		t.Errorf("others: %+v", of)
	}
}

func BenchmarkMark(b *testing.B) {
	k := newKey(b, "layer")
	b.ReportAllocs()
	for b.Loop() {
		_, _ = Mark("layer", k.schedules.Bytes())
	}
}

// BenchmarkSearch is the speed on noise, on zeros and on text, for one layer and for two hundred.
func BenchmarkSearch(b *testing.B) {
	noise := make([]byte, 64<<20)
	rand.Read(noise)
	text := bytes.Repeat([]byte("All human beings are born free and equal. "), len(noise)/42)
	for _, layers := range []int{1, 200} {
		var marks []*Marks
		for range layers {
			marks = append(marks, newKey(b, "layer").marks)
		}
		for _, m := range []struct {
			name string
			mem  []byte
		}{{"noise", noise}, {"text", text}, {"zeros", make([]byte, len(noise))}} {
			b.Run(fmt.Sprintf("%s/%d", m.name, layers), func(b *testing.B) {
				b.SetBytes(int64(len(m.mem)))
				for b.Loop() {
					through(b, marks, spanOf(m.mem))
				}
			})
		}
	}
}
