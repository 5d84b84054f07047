package xts

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"os"
	"strings"
	"testing"
)

// A vector is one data unit of testdata/xts.
type vector struct {
	name                               string
	key, number, plaintext, ciphertext []byte
}

// readVectors reads `name = value` lines; a vector begins with its name, and all values but that are hex.
func readVectors(t *testing.T, file string, want int) []vector {
	t.Helper()
	text, err := os.ReadFile("../testdata/xts/" + file)
	if err != nil {
		t.Fatal(err)
	}
	var all []vector
	for line := range strings.Lines(string(text)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), " = ")
		if !ok || name[0] == '#' {
			continue
		}
		if name == "vector" {
			all = append(all, vector{name: value})
			continue
		}
		b, err := hex.DecodeString(value)
		if err != nil {
			t.Fatal(err)
		}
		v := &all[len(all)-1]
		*map[string]*[]byte{"key": &v.key, "number": &v.number, "plaintext": &v.plaintext, "ciphertext": &v.ciphertext}[name] = b
	}
	if len(all) != want {
		t.Fatalf("%s has %d vectors, want %d", file, len(all), want)
	}
	return all
}

func TestIEEE1619Vectors(t *testing.T) {
	for _, v := range readVectors(t, "ieee1619.txt", 5) {
		everyImplementation(t, func(t *testing.T, i Implementation) {
			c, tweak, got := newCipher(t, v.key), binary.LittleEndian.Uint64(v.number), make([]byte, 512)
			i.Encrypt(c, got, v.plaintext, 512, tweak)
			if !bytes.Equal(got, v.ciphertext) {
				t.Errorf("vector %s encrypts to %x", v.name, got)
			}
			i.Decrypt(c, got, v.ciphertext, 512, tweak)
			if !bytes.Equal(got, v.plaintext) {
				t.Errorf("vector %s decrypts to %x", v.name, got)
			}
		})
	}
}

// TestCAVPVectors is about data units that are no sectors, some with numbers of 128 bits: only the portable code has those. With a number
// that a sector can have, a unit is how a sector begins, for every implementation.
func TestCAVPVectors(t *testing.T) {
	var sectors int
	for _, v := range readVectors(t, "cavp.txt", 10) {
		c, got := newCipher(t, v.key), make([]byte, len(v.plaintext))
		lo, hi := binary.LittleEndian.Uint64(v.number), binary.LittleEndian.Uint64(v.number[8:])
		encryptUnit(c.keys, got, v.plaintext, lo, hi)
		if !bytes.Equal(got, v.ciphertext) {
			t.Errorf("%s encrypts to %x", v.name, got)
		}
		decryptUnit(c.keys, got, v.ciphertext, lo, hi)
		if !bytes.Equal(got, v.plaintext) {
			t.Errorf("%s decrypts to %x", v.name, got)
		}
		if hi == 0 {
			sectors++
			everyImplementation(t, func(t *testing.T, i Implementation) { beginsWith(t, c, i, v, lo) })
		}
	}
	if sectors != 4 {
		t.Errorf("%d units with numbers of sectors, not 4", sectors)
	}
}

// beginsWith has i encrypt and decrypt sectors that begin with what v has.
func beginsWith(t *testing.T, c *Cipher, i Implementation, v vector, tweak uint64) {
	for _, sectorSize := range []int{512, 4096} {
		plaintext, ciphertext := make([]byte, sectorSize), make([]byte, sectorSize)
		copy(plaintext, v.plaintext)
		copy(ciphertext, v.ciphertext)
		i.Encrypt(c, plaintext, plaintext, sectorSize, tweak)
		i.Decrypt(c, ciphertext, ciphertext, sectorSize, tweak)
		if !bytes.HasPrefix(plaintext, v.ciphertext) {
			t.Errorf("%s encrypts to %x", v.name, plaintext[:len(v.ciphertext)])
		}
		if !bytes.HasPrefix(ciphertext, v.plaintext) {
			t.Errorf("%s decrypts to %x", v.name, ciphertext[:len(v.plaintext)])
		}
	}
}
