package attest

import (
	"fmt"

	"nbdcrypt/pkg/aes256"
	"nbdcrypt/pkg/secret"
)

// Schedules is how many bytes of schedules a layer has: the data key's for both directions, then the tweak key's.
const Schedules = 3 * aes256.Size

const (
	roundKeys = 15
	// copySize is what a round key takes in a schedule: it is there four times.
	copySize = aes256.Size / roundKeys
	// hexPieces is how many windows of digits the key of 64 bytes gives: 8 bytes fill one.
	hexPieces = 8
)

// places are where a layer's round keys lie in its schedules, without those that are there twice: the first and the last of
// the inverse schedule are the last and the first of the other.
var places = func() (at []int) {
	for i := range 3 * roundKeys {
		if i != roundKeys && i != 2*roundKeys-1 {
			at = append(at, i*copySize)
		}
	}
	return at
}()

// Marks are what a key is known by once it is wiped.
type Marks struct {
	layer  string
	prints []print // of the round keys, of the same with their words reversed, of the pieces in hex
}

// Mark takes the marks of a layer, whose Schedules bytes are not kept.
func Mark(layer string, schedules []byte) (*Marks, error) {
	if len(schedules) != Schedules {
		return nil, fmt.Errorf("attest: schedules of %d bytes, not %d", len(schedules), Schedules)
	}
	p, err := thePrinter()
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	work, err := secret.Work(len(window{}), secret.Purpose{Kind: "attest", ID: layer, For: "taking the marks of a key"})
	if err != nil {
		return nil, fmt.Errorf("attest: %w", err)
	}
	defer work.Destroy()
	m := &Marks{layer, make([]print, 2*len(places)+hexPieces)}
	secret.Do(func() { m.take(p, schedules, (*window)(work.Bytes())) })
	return m, nil
}

func (m *Marks) take(p *printer, schedules []byte, form *window) {
	for i, at := range places {
		w := (*window)(schedules[at:])
		p.take(&m.prints[i], w)
		form.reverseWords(w)
		p.take(&m.prints[len(places)+i], form)
	}
	for i := range hexPieces {
		form.digits((*[8]byte)(schedules[keyPiece(i):]))
		p.take(&m.prints[2*len(places)+i], form)
	}
}

// keyPiece is where 8 bytes of the key lie: it is the first two round keys of the data key, then of the tweak key.
func keyPiece(i int) int { return i/4*2*aes256.Size + i/2%2*copySize + i%2*8 }

// reverseWords makes w what a machine of the other byte order has in memory for the four words of from.
func (w *window) reverseWords(from *window) {
	for i := range w {
		w[i] = from[i^3]
	}
}

// digits makes w the bytes in hex, without looking up anything by them.
func (w *window) digits(from *[8]byte) {
	for i, b := range from {
		w[2*i], w[2*i+1] = digit(b>>4), digit(b&15)
	}
}

// digit adds what lies between '9' and 'a' to those above 9.
func digit(n byte) byte { return n + '0' + byte(int8(9-n)>>7)&('a'-'0'-10) }

// what names the window that a print was taken of.
func (m *Marks) what(i int) string {
	if i >= 2*len(places) {
		return fmt.Sprintf("bytes %d to %d of the key in hex", (i-2*len(places))*8, (i-2*len(places))*8+7)
	}
	reversed := ""
	if i >= len(places) {
		i, reversed = i-len(places), ", its words reversed"
	}
	n := places[i] / copySize
	return fmt.Sprintf("round key %d of the %s%s", n%roundKeys,
		[]string{"data key, encryption", "data key, decryption", "tweak key"}[n/roundKeys], reversed)
}
