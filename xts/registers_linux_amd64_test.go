//go:build !purego && !race

package xts

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"nbdcrypt/pkg/aes256"
)

// TestRoundKeysAreNeverInRegisters looks at all registers after every instruction of every kernel. A signal saves registers to a
// stack that a dump can read; so a round key must be a memory operand and nothing else.
//
// It finds round keys as they are. Up to five of the data key's stand in registers XORed with a tweak, on purpose:
// docs/threat-model.md says what that gives away.
func TestRoundKeysAreNeverInRegisters(t *testing.T) {
	passed, calls := map[uint64]bool{}, 0
	everyTracedCall(t, func(t *testing.T, call call, p *tracee) {
		s := newKeySearch(t, tracedKey(0))
		p.enterKernel()
		for p.inKernel() {
			address := p.regs.Rip
			p.step()
			p.readWords()
			s.look(p.words, address)
			passed[address] = true
		}
		calls++
		if call.name == expansion.name {
			s.checkExpansion(t, p.words)
		} else {
			s.checkKernel(t)
		}
	})
	if calls == len(tracedCalls()) { // and -run left none out
		checkPassed(t, passed)
	}
}

// checkPassed wants the calls to have passed every instruction of every kernel, so that there is none that nobody has looked after.
func checkPassed(t *testing.T, addresses map[uint64]bool) {
	t.Helper()
	passed := map[string]bool{}
	for a := range addresses {
		file, line := source(a)
		passed[fmt.Sprint(file, ":", line)] = true
	}
	for _, i := range Implementations() {
		if i == generic {
			continue
		}
		file := fmt.Sprintf("xts_%s_amd64.s", i)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(string(text), "\n")
		for n := slices.IndexFunc(lines, isText); n < len(lines); n++ {
			if place := fmt.Sprint(file, ":", n+1); strings.HasPrefix(lines[n], "\t") && !passed[place] {
				t.Errorf("%s, %s, has not been passed", place, lines[n])
			}
		}
	}
}

func isText(line string) bool { return strings.HasPrefix(line, "TEXT ") }

func everyTracedCall(t *testing.T, f func(t *testing.T, call call, p *tracee)) {
	calls := tracedCalls()
	if len(calls) == 0 {
		t.Skip("this processor can't run any assembly")
	}
	for n, call := range calls {
		t.Run(call.name, func(t *testing.T) { f(t, call, trace(t, n)) })
	}
}

// A keySearch looks for halves of round keys in every word of every register.
type keySearch struct {
	keys      *schedules
	names     map[uint64]string // of halves
	seen      []uint64          // the words as they were last time
	found     map[uint64]string // where a half came up first
	firstStep bool              // of AES on a number came up
}

func newKeySearch(t *testing.T, key []byte) *keySearch {
	t.Helper()
	s := &keySearch{keys: newCipher(t, key).keys, names: map[uint64]string{}, found: map[uint64]string{}}
	for name, schedule := range map[string]*aes256.Schedule{"enc": &s.keys.enc, "dec": &s.keys.dec, "tweak": &s.keys.tweak} {
		for r := range schedule {
			lo, hi := halves(schedule, r)
			s.names[lo], s.names[hi] = fmt.Sprintf("%s[%d], low half,", name, r), fmt.Sprintf("%s[%d], high half,", name, r)
		}
	}
	return s
}

// halves are those of round key r.
func halves(schedule *aes256.Schedule, r int) (lo, hi uint64) {
	words := (*[2]uint64)(unsafe.Pointer(&schedule[r]))
	return words[0], words[1]
}

// look searches what the instruction at that address has changed.
func (s *keySearch) look(words []uint64, address uint64) {
	for i, word := range words {
		if i < len(s.seen) && word == s.seen[i] {
			continue
		}
		switch {
		case s.names[word] == "":
		case s.isFirstStep(words, i):
			s.firstStep = true
		case s.found[word] == "":
			file, line := source(address)
			s.found[word] = fmt.Sprintf("round key %s was in %s after %s:%d", s.names[word], wordName(i), file, line)
		}
	}
	s.seen = append(s.seen[:0], words...)
}

// isFirstStep tells whether word i is the high half of number XOR round key, the first step of AES on the number of a sector. Numbers
// have 64 bits: there, and nowhere else, eight bytes of the tweak key's first round key may be in a vector register as they are.
// That it is there shows in the low half: a number of the run, or one shortly after it, since kernels compute more than they need.
func (s *keySearch) isFirstStep(words []uint64, i int) bool {
	lo, hi := halves(&s.keys.tweak, 0)
	return i > xsaveWords && i%2 == 1 && words[i] == hi && words[i-1]^lo-firstNumber < 1000
}

func (s *keySearch) checkKernel(t *testing.T) {
	t.Helper()
	for _, found := range slices.Sorted(maps.Values(s.found)) {
		t.Error(found)
	}
	if !s.firstStep {
		t.Error("the first step of AES on a number was never seen, so that the search can't have worked")
	}
}

// checkExpansion shows that the search finds round keys where there are some, and that they are gone in the end, when the registers
// are words.
func (s *keySearch) checkExpansion(t *testing.T, words []uint64) {
	t.Helper()
	for r := range s.keys.enc {
		lo, hi := halves(&s.keys.enc, r)
		if s.found[lo] == "" || s.found[hi] == "" {
			t.Errorf("round key %d was made without being seen in a register: %q, %q", r, s.found[lo], s.found[hi])
		}
	}
	for i, word := range words {
		if s.names[word] != "" {
			t.Errorf("round key %s is left in %s", s.names[word], wordName(i))
		}
	}
}

// TestKernelsLeaveNoSecrets makes each call under two keys, with two texts. If all registers and the stack are the same after it, then
// there is nothing of a tweak, a key or a text in them, whatever the form.
func TestKernelsLeaveNoSecrets(t *testing.T) {
	everyTracedCall(t, func(t *testing.T, _ call, p *tracee) {
		middle, end := p.trails()
		otherMiddle, otherEnd := p.trails()
		for _, difference := range end.differences(otherEnd) {
			t.Errorf("after the call, %s depends on key or text", difference)
		}
		if len(middle.differences(otherMiddle)) == 0 {
			t.Error("nothing depends on key or text in the middle of the call, so that the comparison can't have worked")
		}
	})
}

// A trail is what a kernel has in registers and on the stack below its caller.
type trail struct{ words, stack []uint64 }

// trails returns those in the middle of the next call, which is a number of instructions that every kernel has more of, and after it.
func (p *tracee) trails() (middle, end trail) {
	p.t.Helper()
	for p.enterKernel(); p.steps < 150; {
		p.step()
	}
	middle = p.trail()
	p.leaveKernel()
	return middle, p.trail()
}

func (p *tracee) trail() trail {
	p.t.Helper()
	p.readWords()
	p.words[xsaveWords+changed] = 0 // whether zeros count as changed is for the processor to say
	return trail{slices.Clone(p.words), p.stack()}
}

// differences names what is not the same in a and b.
func (a trail) differences(b trail) (list []string) {
	for i := range a.words {
		if a.words[i] != b.words[i] {
			list = append(list, wordName(i))
		}
	}
	for i := range a.stack {
		if a.stack[i] != b.stack[i] {
			list = append(list, fmt.Sprintf("the word %d bytes below the caller's stack", belowCaller-8*i))
		}
	}
	return list
}
