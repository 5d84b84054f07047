package kit

import (
	"errors"
	"fmt"
)

// A share is written as four lines of 16 letters, 10 bytes each, and a group of four that holds the number of the line and the
// line's sum.
const (
	Lines = 4
	// LineSize is the length of a line as it is written: five groups of four with blanks between, two before the last.
	LineSize = 5*group + 5

	group     = 4
	lineBytes = ShareSize / Lines
	letters   = 5 * group
)

// alphabet has no letters that look like others: i, l, o and u are left out (Crockford's base32).
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// WriteLine writes a line of a share, counted from 1, into dst, which has LineSize bytes.
func WriteLine(dst, share []byte, line int) {
	data := share[(line-1)*lineBytes:][:lineBytes]
	sum := uint32(line)<<16 | uint32(crc16(byte(line), data))
	at := 0
	put := func(n int, five byte) {
		if n > 0 && n%group == 0 {
			dst[at] = ' '
			at++
		}
		if n == letters-group {
			dst[at] = ' '
			at++
		}
		dst[at] = letter(five)
		at++
	}
	for n := range letters - group {
		put(n, fiveOf(data, n))
	}
	for n := range group {
		put(letters-group+n, byte(sum>>(5*(group-1-n)))&31)
	}
}

// fiveOf is the nth run of five bits.
func fiveOf(data []byte, n int) (five byte) {
	for bit := 5 * n; bit < 5*n+5; bit++ {
		five = five<<1 | data[bit/8]>>(7-bit%8)&1
	}
	return five
}

// letter writes five bits, and looks at the whole alphabet for it.
func letter(five byte) (c byte) {
	for i := range len(alphabet) {
		c |= alphabet[i] & same(byte(i), five)
	}
	return c
}

// same is 255 where two bytes are equal, else 0.
func same(a, b byte) byte { return byte((uint16(a^b) - 1) >> 8) }

// valueOf reads a letter; ok is 255 where it is one. Capitals count as small letters, and what looks like a digit as that.
func valueOf(c byte) (five, ok byte) {
	c |= 0x20 & -((c & 0x40) >> 6)
	c ^= same(c, 'o')&('o'^'0') ^ same(c, 'i')&('i'^'1') ^ same(c, 'l')&('l'^'1')
	for i := range len(alphabet) {
		hit := same(alphabet[i], c)
		five |= byte(i) & hit
		ok |= hit
	}
	return five, ok
}

// What can be wrong with a line.
var (
	errLetters = errors.New("not 20 letters and digits of the kit's alphabet")
	errSum     = errors.New("its last group does not fit: look for a typo")
)

// ReadLine reads a line, counted from 1, as a person typed it, into its place in share. Blanks and dashes mean nothing.
func ReadLine(share, text []byte, line int) error {
	data := share[(line-1)*lineBytes:][:lineBytes]
	clear(data)
	sum, n, good := uint32(0), 0, byte(255)
	for _, c := range text {
		if c == ' ' || c == '-' || c == '\t' || c == '\r' {
			continue
		}
		five, ok := valueOf(c)
		good &= ok
		switch {
		case n < letters-group:
			putFive(data, n, five)
		case n < letters:
			sum = sum<<5 | uint32(five)
		}
		n++
	}
	if n != letters || good != 255 {
		return fmt.Errorf("%w (%d)", errLetters, n)
	}
	is := byte(sum >> 16)
	if uint16(sum) != crc16(is, data) || is < 1 || is > Lines {
		return errSum
	}
	if is != byte(line) {
		return fmt.Errorf("it is line %d of its sheet", is)
	}
	return nil
}

func putFive(data []byte, n int, five byte) {
	for i := range 5 {
		bit := 5*n + i
		data[bit/8] |= five >> (4 - i) & 1 << (7 - bit%8)
	}
}

// crc16 is CRC-16/IBM-3740 (polynomial 0x1021, from 0xffff) over the line's number and its bytes: any change of up to three
// letters in a row is found, and of others all but one in 65536.
func crc16(line byte, data []byte) uint16 {
	sum := crcStep(0xffff, line)
	for _, b := range data {
		sum = crcStep(sum, b)
	}
	return sum
}

func crcStep(sum uint16, b byte) uint16 {
	sum ^= uint16(b) << 8
	for range 8 {
		sum = sum<<1 ^ 0x1021&-(sum>>15)
	}
	return sum
}
