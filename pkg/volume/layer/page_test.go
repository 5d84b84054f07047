package layer

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	"github.com/google/uuid"
)

var testID = uuid.MustParse("0190b5a0-0000-7000-8000-00000000abcd")

const testRecord = 7

// someStates draws a record.
func someStates(rng *rand.Rand) *states {
	s := new(states)
	for i := range recordStates {
		s.set(i, State(rng.IntN(4)))
	}
	return s
}

// mix takes the first n parts from a and the others from b.
func mix(a, b []byte, n int) []byte {
	return append(bytes.Clone(a[:n*partSize]), b[n*partSize:]...)
}

func judgePages(odd, even []byte) (verdict, error) {
	return judge(inspect(testID, testRecord, true, odd), inspect(testID, testRecord, false, even))
}

func TestStates(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 1))
	s := someStates(rng)
	for range 1000 {
		i := rng.IntN(recordStates)
		end := i + 1 + rng.IntN(recordStates-i)
		n := s.run(i, end)
		for j := i; j < i+n; j++ {
			if s.get(j) != s.get(i) {
				t.Fatalf("run(%d, %d) = %d, but state %d differs", i, end, n, j)
			}
		}
		if i+n < end && s.get(i+n) == s.get(i) {
			t.Fatalf("run(%d, %d) = %d is too short", i, end, n)
		}
	}
	if n := uniform[Data].run(3, recordStates-1); n != recordStates-4 {
		t.Errorf("a uniform record runs for %d", n)
	}
}

// Durability rule 2: a torn map page falls back to the one before it.
func TestDurability2_TornPageFallsBack(t *testing.T) {
	rng := rand.New(rand.NewPCG(2, 2))
	blank := make([]byte, pageSize)
	var pages [5][]byte
	var want [5]*states
	pages[0], want[0] = blank, uniform[Absent]
	for g := 1; g < 5; g++ {
		want[g] = someStates(rng)
		pages[g] = encodePage(testID, testRecord, uint64(g), rng.Uint32(), want[g])
	}
	for g := 0; g < 4; g++ { // generation g+1 is being written over g-1
		under := blank
		if g > 1 {
			under = pages[g-1]
		}
		for n := range partsPerPage + 1 {
			torn := mix(pages[g+1], under, n)
			again := encodePage(testID, testRecord, uint64(g+1), rng.Uint32(), want[g+1])
			twice := mix(torn, again, max(1, n/2))
			for _, next := range [][]byte{torn, twice} {
				odd, even := next, pages[g]
				if g%2 == 1 {
					odd, even = even, odd
				}
				got, err := judgePages(odd, even)
				if err != nil {
					t.Fatalf("generation %d, %d parts: %v", g+1, n, err)
				}
				expect := g
				if n == partsPerPage && bytes.Equal(next, torn) {
					expect = g + 1
				}
				if got.generation != uint64(expect) || *got.states != *want[expect] {
					t.Fatalf("generation %d, %d parts: got generation %d, want %d", g+1, n, got.generation, expect)
				}
			}
		}
	}
}

// Durability rule 2: a flipped bit in the page that counts is an error, whichever bit it is; in the other page it
// changes nothing.
func TestDurability2_FlippedBitIsNoGuess(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 3))
	for g := uint64(1); g < 4; g++ {
		newer := encodePage(testID, testRecord, g+1, rng.Uint32(), someStates(rng))
		states := someStates(rng)
		older := encodePage(testID, testRecord, g, rng.Uint32(), states)
		judgeBoth := func() (verdict, error) {
			if g%2 == 1 {
				return judgePages(older, newer)
			}
			return judgePages(newer, older)
		}
		for bit := range pageSize * 8 {
			newer[bit/8] ^= 1 << (bit % 8)
			if v, err := judgeBoth(); !errors.Is(err, ErrDamaged) {
				t.Fatalf("bit %d of generation %d: %v, generation %d", bit, g+1, err, v.generation)
			}
			newer[bit/8] ^= 1 << (bit % 8)
			older[bit/8] ^= 1 << (bit % 8)
			if v, err := judgeBoth(); err != nil || v.generation != g+1 || !v.stale {
				t.Fatalf("bit %d of the older page: %v %+v", bit, err, v.generation)
			}
			older[bit/8] ^= 1 << (bit % 8)
		}
	}
}

func TestDurability2_FirstPageFlipped(t *testing.T) {
	page := encodePage(testID, testRecord, 1, 99, uniform[Data])
	for bit := range pageSize * 8 {
		page[bit/8] ^= 1 << (bit % 8)
		if _, err := judgePages(page, make([]byte, pageSize)); !errors.Is(err, ErrDamaged) {
			t.Fatalf("bit %d: %v", bit, err)
		}
		page[bit/8] ^= 1 << (bit % 8)
	}
}

// A page is bound to its layer, its record and its place.
func TestPagesBelongSomewhere(t *testing.T) {
	s := someStates(rand.New(rand.NewPCG(4, 4)))
	blank := make([]byte, pageSize)
	for name, page := range map[string][]byte{
		"another layer":  encodePage(uuid.New(), testRecord, 1, 1, s),
		"another record": encodePage(testID, testRecord+1, 1, 1, s),
		"wrong parity":   encodePage(testID, testRecord, 2, 1, s),
		"generation 0":   encodePage(testID, testRecord, 0, 1, s),
		"vanished half":  encodePage(testID, testRecord, 3, 1, s),
	} {
		if _, err := judgePages(page, blank); !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// FuzzJudge: whatever the two pages hold, the answer is an error, or a generation one of them really has.
func FuzzJudge(f *testing.F) {
	s := someStates(rand.New(rand.NewPCG(5, 5)))
	one, two := encodePage(testID, testRecord, 1, 1, s), encodePage(testID, testRecord, 2, 2, uniform[Data])
	seeds := [][2][]byte{{one, two}, {one, make([]byte, pageSize)}, {mix(one, two, 3), two}}
	for _, s := range seeds {
		f.Add(s[0], s[1])
	}
	f.Fuzz(func(t *testing.T, odd, even []byte) {
		if len(odd) != pageSize || len(even) != pageSize {
			return
		}
		v, err := judgePages(odd, even)
		if err != nil {
			return
		}
		if v.generation != 0 && pageWhole(odd, even, v.generation) == false {
			t.Errorf("generation %d from nowhere", v.generation)
		}
	})
}

func pageWhole(odd, even []byte, g uint64) bool {
	p := even
	if g%2 == 1 {
		p = odd
	}
	return inspect(testID, testRecord, g%2 == 1, p).whole() == g
}

func TestHeader(t *testing.T) {
	for _, h := range []Header{{testID, true, 512}, {testID, false, 4096}} {
		got, err := decodeHeader(h.encode())
		if err != nil || got != h {
			t.Errorf("%+v: %+v %v", h, got, err)
		}
	}
	page := Header{testID, true, 512}.encode()
	for bit := range pageSize * 8 {
		page[bit/8] ^= 1 << (bit % 8)
		if _, err := decodeHeader(page); err == nil {
			t.Fatalf("bit %d flipped: no error", bit)
		}
		page[bit/8] ^= 1 << (bit % 8)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	for _, h := range []Header{{testID, true, 512}, {testID, false, 4096}} {
		f.Add(h.encode())
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		h, err := decodeHeader(p)
		if err == nil && !bytes.Equal(h.encode(), p) {
			t.Error("two headers mean the same")
		}
	})
}
