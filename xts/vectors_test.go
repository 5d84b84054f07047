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

// TestCAVPVectors is about data units that are no sectors, with numbers of 128 bits; only the portable code has them.
func TestCAVPVectors(t *testing.T) {
	for _, v := range readVectors(t, "cavp.txt", 6) {
		c, got := newCipher(t, v.key), make([]byte, len(v.plaintext))
		lo, hi := binary.LittleEndian.Uint64(v.number), binary.LittleEndian.Uint64(v.number[8:])
		encryptUnit(c.keys, got, v.plaintext, lo, hi)
		if !bytes.Equal(got, v.ciphertext) {
			t.Errorf("COUNT = %s encrypts to %x", v.name, got)
		}
		decryptUnit(c.keys, got, v.ciphertext, lo, hi)
		if !bytes.Equal(got, v.plaintext) {
			t.Errorf("COUNT = %s decrypts to %x", v.name, got)
		}
	}
}
