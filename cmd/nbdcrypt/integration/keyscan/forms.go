package keyscan

import (
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"math/bits"
	"strconv"
	"strings"
)

// swapped has the bytes of each word in the other order, as code keeps them that works on big-endian words.
func swapped(p piece) (q piece) {
	for i := 0; i < pieceSize; i += 4 {
		binary.BigEndian.PutUint32(q[i:], bits.ReverseBytes32(binary.BigEndian.Uint32(p[i:])))
	}
	return q
}

func masked(p piece, with byte) piece {
	for i := range p {
		p[i] ^= with
	}
	return p
}

// addKey adds an AES-256 key: every round key, as it is and with its words swapped; and how the key begins a block of HMAC
// (RFC 2104), where it is XORed with a constant.
func (s *Scanner) addKey(name string, key []byte) {
	enc := expand(key)
	for r, p := range enc {
		s.addPiece(name, "encryption round key "+strconv.Itoa(r), p)
	}
	for r, p := range invert(enc) {
		s.addPiece(name, "decryption round key "+strconv.Itoa(r), p)
	}
	for _, p := range enc[:2] {
		s.addPiece(name, "HMAC's inner key", masked(p, 0x36))
		s.addPiece(name, "HMAC's outer key", masked(p, 0x5c))
	}
}

func (s *Scanner) addPiece(name, form string, p piece) {
	for _, swap := range []bool{false, true} {
		if swap {
			p, form = swapped(p), form+", words swapped"
		}
		s.add(pattern{name, form, p[8:], true}, p[:8])
		s.add(pattern{name, form + ", second half", nil, false}, p[8:])
	}
}

// addText adds what a secret looks like when somebody prints it: every 16 bytes of it in hex, and in base64 at each of the three
// places that a byte can have in a group.
func (s *Scanner) addText(name string, secret []byte) {
	for at := 0; at < len(secret); at += pieceSize {
		p := secret[min(at, max(0, len(secret)-pieceSize)):]
		p = p[:min(len(p), pieceSize)]
		digits := hex.EncodeToString(p)
		s.addString(name, "hex", digits)
		s.addString(name, "hex", strings.ToUpper(digits))
		for shift := range 3 {
			// The first and the last groups also hold bits of the neighbours; those between are the piece's own.
			padded := append(make([]byte, shift), p...)
			whole := len(padded) / 3 * 4
			for _, encoding := range []*base64.Encoding{base64.StdEncoding, base64.URLEncoding} {
				s.addString(name, "base64", encoding.EncodeToString(padded)[min(shift, 1)*4:whole])
			}
		}
	}
}

func (s *Scanner) addString(name, form, text string) {
	s.add(pattern{name, form, []byte(text)[8:], false}, []byte(text)[:8])
}

// random tells bytes that may be key material from text, counters, padding and the like.
func random(p piece) bool {
	var seen [256]bool
	different, text := 0, true
	for _, b := range p {
		if !seen[b] {
			different++
		}
		seen[b] = true
		text = text && (b >= ' ' && b <= '~' || b == '\n')
	}
	return different > 10 && !text
}
