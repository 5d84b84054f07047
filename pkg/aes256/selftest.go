package aes256

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"unsafe"
)

// answers are known ones, in hex.
type answers struct {
	key, plaintext, ciphertext            string
	gcmKey, nonce, text, aad, sealed, tag string
}

// published is FIPS 197, C.3, and test case 16 of McGrew and Viega, "The Galois/Counter Mode of Operation (GCM)", which has
// a last block that is short and associated data.
var published = answers{
	key:        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
	plaintext:  "00112233445566778899aabbccddeeff",
	ciphertext: "8ea2b7ca516745bfeafc49904b496089",
	gcmKey:     "feffe9928665731c6d6a8f9467308308feffe9928665731c6d6a8f9467308308",
	nonce:      "cafebabefacedbaddecaf888",
	text: "d9313225f88406e5a55909c5aff5269a86a7a9531534f7da2e4c303d8a318a72" +
		"1c3c0c95956809532fcf0e2449a6b525b16aedf5aa0de657ba637b39",
	aad: "feedfacedeadbeeffeedfacedeadbeefabaddad2",
	sealed: "522dc1f099567d07f47f37a32a84427d643a8cdcbfe5c0c97598a2bd2555d1aa" +
		"8cb08e48590dbb3da7b08b1056828838c5f61e6393ba7a0abcc9f662",
	tag: "76fc6ece0f4e1768cddf8853bb2d551b",
}

// SelfTest compares the block cipher and GCM with published answers, both ways, on the path that is in use.
func SelfTest() error {
	if err := published.testBlock(); err != nil {
		return fmt.Errorf("aes256: self-test: %w", err)
	}
	if err := published.testGCM(); err != nil {
		return fmt.Errorf("aes256: self-test of GCM: %w", err)
	}
	return nil
}

func (a *answers) testBlock() error {
	mem := InsecureMemory(2 * Size)
	enc, dec := (*Schedule)(unsafe.Pointer(&mem[0])), (*Schedule)(unsafe.Pointer(&mem[Size]))
	enc.Expand((*[KeySize]byte)(unhex(a.key)))
	dec.Invert(enc)
	plaintext, ciphertext := unhex(a.plaintext), unhex(a.ciphertext)
	if !bytes.Equal(block(enc.EncryptColumns, plaintext), ciphertext) {
		return errors.New("a block does not encrypt as FIPS 197 says")
	}
	if !bytes.Equal(block(dec.DecryptColumns, ciphertext), plaintext) {
		return errors.New("a block does not decrypt as FIPS 197 says")
	}
	return nil
}

// block is what crypt makes of a block in memory.
func block(crypt func(s0, s1, s2, s3 uint32) (uint32, uint32, uint32, uint32), src []byte) []byte {
	dst := make([]byte, BlockSize)
	s0, s1, s2, s3 := crypt(loadColumns(src))
	storeColumns(dst, s0, s1, s2, s3)
	return dst
}

func (a *answers) testGCM() error {
	g, err := NewGCM(InsecureMemory(GCMSize), unhex(a.gcmKey))
	if err != nil {
		return err
	}
	defer g.Wipe()
	nonce, text, aad, sealed := unhex(a.nonce), unhex(a.text), unhex(a.aad), unhex(a.sealed+a.tag)
	got := make([]byte, len(sealed))
	if err := g.Seal(got, nonce, text, aad); err != nil {
		return err
	}
	if !bytes.Equal(got, sealed) {
		return errors.New("a message is not sealed as published")
	}
	got = got[:len(text)]
	if err := g.Open(got, nonce, sealed, aad); err != nil {
		return err
	}
	if !bytes.Equal(got, text) {
		return errors.New("a message does not open as published")
	}
	sealed[len(sealed)-1] ^= 1
	if err := g.Open(got, nonce, sealed, aad); !errors.Is(err, ErrOpen) {
		return errors.New("a forged message opens")
	}
	return nil
}

// unhex reads constants of this file; what is no hex shows as a wrong answer.
func unhex(s string) []byte {
	b, _ := hex.DecodeString(s)
	return b
}
