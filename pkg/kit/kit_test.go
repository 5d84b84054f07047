package kit

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	mrand "math/rand/v2"
	"strings"
	"testing"
)

// FIPS 197, sections 4.2 and 4.2.1.
func TestFieldKnownAnswers(t *testing.T) {
	for b, want := range map[byte]byte{0x01: 0x57, 0x02: 0xae, 0x04: 0x47, 0x08: 0x8e, 0x10: 0x07, 0x13: 0xfe, 0x83: 0xc1} {
		if got := mul(0x57, b); got != want || mul(b, 0x57) != want {
			t.Errorf("{57} times {%02x} is {%02x}, want {%02x}", b, got, want)
		}
	}
	if inverse(0) != 0 || inverse(0x53) != 0xca {
		t.Errorf("inverses: %02x, %02x", inverse(0), inverse(0x53))
	}
	for a := 1; a < 256; a++ {
		if mul(byte(a), inverse(byte(a))) != 1 {
			t.Errorf("the inverse of %02x is %02x", a, inverse(byte(a)))
		}
	}
}

// The products are those of FIPS 197 again: with coefficient {57} the shares at 1, 2, 4, 8 and {10} are known.
func TestSplitKnownAnswer(t *testing.T) {
	secret := bytes.Repeat([]byte{0x42}, SecretSize)
	random := bytes.Repeat([]byte{0x57}, SecretSize)
	shares := make([]byte, 16*ShareSize)
	if err := Split(shares, secret, random, [TagSize]byte{1, 2, 3, 4}, 2); err != nil {
		t.Fatal(err)
	}
	for x, product := range map[int]byte{1: 0x57, 2: 0xae, 4: 0x47, 8: 0x8e, 16: 0x07} {
		share := shares[(x-1)*ShareSize:][:ShareSize]
		want := fmt.Sprintf("0101020304%02x0210%s", x, strings.Repeat(fmt.Sprintf("%02x", 0x42^product), SecretSize))
		if got := hex.EncodeToString(share); got != want {
			t.Errorf("share %d is %s, want %s", x, got, want)
		}
	}
}

func split(t testing.TB, count, threshold int) (secret, shares []byte) {
	t.Helper()
	secret, shares = make([]byte, SecretSize), make([]byte, count*ShareSize)
	random := make([]byte, (threshold-1)*SecretSize)
	rand.Read(secret)
	rand.Read(random)
	if err := Split(shares, secret, random, [TagSize]byte(secret), threshold); err != nil {
		t.Fatal(err)
	}
	return secret, shares
}

// Any threshold of the shares, and any more, in any order, give the secret back; one fewer give something else, for every
// kit that there can be.
func TestRuleC8_AnyThresholdOfSharesCombines(t *testing.T) {
	for count := 1; count <= MaxShares; count++ {
		for threshold := 1; threshold <= count; threshold++ {
			if CheckSplit(count, threshold) != nil {
				continue
			}
			secret, shares := split(t, count, threshold)
			for range 8 {
				some := make([]byte, 0, len(shares))
				n := threshold + mrand.IntN(count-threshold+1)
				for _, i := range mrand.Perm(count)[:n] {
					some = append(some, shares[i*ShareSize:][:ShareSize]...)
				}
				got := make([]byte, SecretSize)
				if err := Combine(got, some); err != nil || !bytes.Equal(got, secret) {
					t.Fatalf("%d of %d, with %d: %v", threshold, count, n, err)
				}
				if few := some[:(threshold-1)*ShareSize]; len(few) > 0 {
					if err := Combine(got, few); err != nil || bytes.Equal(got, secret) {
						t.Fatalf("%d of %d combine %d: %v", threshold, count, threshold-1, err)
					}
				}
			}
		}
	}
}

// What threshold-1 shares look like does not depend on the secret: for each byte of a secret there is a polynomial through them.
func TestTooFewSharesSayNothing(t *testing.T) {
	seen := map[byte]bool{}
	at := make([]byte, 1)
	for a := range 256 {
		evaluate(at, []byte{0x42}, []byte{byte(a)}, 3)
		seen[at[0]] = true
	}
	if len(seen) != 256 {
		t.Errorf("a share of the same secret takes %d values", len(seen))
	}
}

func TestSplitsThatAreNone(t *testing.T) {
	for _, c := range [][2]int{{0, 0}, {1, 0}, {2, 1}, {1, 2}, {3, 4}, {17, 2}, {17, 17}} {
		if CheckSplit(c[0], c[1]) == nil {
			t.Errorf("%d of %d is a kit", c[1], c[0])
		}
	}
	if Split(make([]byte, 2*ShareSize), make([]byte, SecretSize), nil, [TagSize]byte{}, 2) == nil || Combine(make([]byte, SecretSize), nil) == nil ||
		Combine(make([]byte, SecretSize), make([]byte, ShareSize-1)) == nil {
		t.Error("wrong lengths are taken")
	}
}

func written(share []byte) (lines []string) {
	for n := 1; n <= Lines; n++ {
		dst := make([]byte, LineSize)
		WriteLine(dst, share, n)
		lines = append(lines, string(dst))
	}
	return lines
}

// The catalogue of CRCs gives this check value for CRC-16/IBM-3740.
func TestSumKnownAnswer(t *testing.T) {
	if got := crc16('1', []byte("23456789")); got != 0x29b1 {
		t.Errorf("%04x", got)
	}
	share := make([]byte, ShareSize)
	share[0], share[39] = 1, 255
	if got := written(share); got[0][:19] != "0400 0000 0000 0000" || got[3][:19] != "0000 0000 0000 007z" {
		t.Errorf("%q", got)
	}
}

// Each single wrong letter, and each two neighbours that changed places, is found in its line.
func TestTyposAreFoundInTheirLine(t *testing.T) {
	_, shares := split(t, 3, 2)
	for n, line := range written(shares[:ShareSize]) {
		share := make([]byte, ShareSize)
		for _, spelling := range []string{line, strings.ToUpper(line), strings.ReplaceAll(line, " ", "-"), strings.ReplaceAll(line, " ", ""),
			strings.NewReplacer("0", "O", "1", "l").Replace(line), strings.NewReplacer("0", "o", "1", "I").Replace(line) + "\r"} {
			if err := ReadLine(share, []byte(spelling), n+1); err != nil || !bytes.Equal(share[n*lineBytes:][:lineBytes], shares[n*lineBytes:][:lineBytes]) {
				t.Errorf("%q: %v", spelling, err)
			}
		}
		for i := range line {
			for _, c := range []byte(alphabet + "u!\x00\xff") {
				b := []byte(line)
				if b[i] == ' ' || b[i] == c {
					continue
				}
				b[i] = c
				if ReadLine(share, b, n+1) == nil {
					t.Errorf("%q is read for %q", b, line)
				}
			}
			if b := []byte(line); i > 0 && b[i] != b[i-1] && b[i] != ' ' && b[i-1] != ' ' {
				b[i], b[i-1] = b[i-1], b[i]
				if ReadLine(share, b, n+1) == nil {
					t.Errorf("%q is read for %q", b, line)
				}
			}
		}
		other := (n+1)%Lines + 1
		if err := ReadLine(share, []byte(line), other); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("it is line %d", n+1)) {
			t.Errorf("line %d in the place of %d: %v", n+1, other, err)
		}
		for _, short := range []string{"", line[1:], line + "0"} {
			if err := ReadLine(share, []byte(short), n+1); !errors.Is(err, errLetters) {
				t.Errorf("%q: %v", short, err)
			}
		}
	}
}

func sheet(share []byte) string {
	text := "nbdcrypt recovery kit\nstore 1\n\n"
	for n, line := range written(share) {
		text += fmt.Sprintf("    line %d  %s\n", n+1, line)
	}
	return text + "\nType the lines above. Line 5 there is not. line 2: see above\n"
}

func TestSheetsReadBack(t *testing.T) {
	_, shares := split(t, 5, 3)
	text := sheet(shares[:ShareSize]) + sheet(shares[2*ShareSize:3*ShareSize])
	got := make([]byte, MaxShares*ShareSize)
	n, err := ReadSheets(got, []byte(text), 1)
	if err != nil || n != 2 || !bytes.Equal(got[:ShareSize], shares[:ShareSize]) || !bytes.Equal(got[ShareSize:2*ShareSize], shares[2*ShareSize:][:ShareSize]) {
		t.Fatalf("%d, %v", n, err)
	}
	if h, err := HeadOf(got[ShareSize:][:ShareSize]); err != nil || h.Number != 3 || h.Threshold != 3 || h.Count != 5 {
		t.Errorf("%+v, %v", h, err)
	}
	one := sheet(shares[:ShareSize])
	lines := strings.Split(one, "\n")
	typo := []byte(lines[4])
	typo[len("    line 2  ")] ^= 1
	for what, c := range map[string]struct {
		text        string
		sheet, line int
	}{
		"a typo":           {text + strings.Replace(one, lines[4], string(typo), 1), 3, 2},
		"a line missing":   {strings.Replace(one, lines[4]+"\n", "", 1), 1, 2},
		"the last missing": {strings.Replace(one, lines[6]+"\n", "", 1), 1, 4},
		"lines exchanged":  {strings.NewReplacer("line 2", "line 3", "line 3", "line 2").Replace(one), 1, 2},
		"more than a kit":  {strings.Repeat(one, MaxShares+1), MaxShares + 1, 0},
		"a wrong share":    {sheet(make([]byte, ShareSize)), 1, 0},
	} {
		_, err := ReadSheets(got, []byte(c.text), 1)
		var p *Problem
		if !errors.As(err, &p) || p.Sheet != c.sheet || p.Line != c.line {
			t.Errorf("%s: %v", what, err)
		}
	}
	if n, err := ReadSheets(got, []byte("nothing of ours"), 1); n != 0 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
}

func FuzzSheets(f *testing.F) {
	_, shares := split(f, 3, 2)
	seed := sheet(shares[:ShareSize])
	if n, err := ReadSheets(make([]byte, ShareSize), []byte(seed), 1); n != 1 || err != nil {
		f.Fatal(n, err)
	}
	f.Add([]byte(seed))
	f.Add([]byte("line 1 0000 0000 0000 0000  0000\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		got := make([]byte, 2*ShareSize)
		n, _ := ReadSheets(got, text, 1)
		for i := range n {
			share := got[i*ShareSize:][:ShareSize]
			if _, err := HeadOf(share); err != nil {
				t.Errorf("%x is taken: %v", share, err)
			}
			again := make([]byte, ShareSize)
			if n, err := ReadSheets(again, []byte(sheet(share)), 1); n != 1 || err != nil || !bytes.Equal(again, share) {
				t.Errorf("%x is written as something else: %v", share, err)
			}
		}
	})
}
