package xts

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"nbdcrypt/pkg/aes256"
)

// A knownAnswer is what a run of sectors encrypts to under selfTestKey. The plaintext counts bytes: 0, 1, … 255, 0, 1, …
type knownAnswer struct {
	sectorSize, sectors int
	tweak               uint64
	sha256              string // of the ciphertext
}

// selfTestKey is the key of IEEE 1619-2007, annex B, vectors 10 to 14: digits of e, then of π.
const selfTestKey = "2718281828459045235360287471352662497757247093699959574966967627" +
	"3141592653589793238462643383279502884197169399375105820974944592"

// knownAnswers were computed with OpenSSL, sector by sector. The first sector of the first run is vector 10 of IEEE 1619; the
// second crosses a carry in the tweak. The others are long enough for every loop of an implementation, and wrap round.
var knownAnswers = []knownAnswer{
	{512, 4, 0xff, "e18b54741bfa003d7b6b96051f32a027e59f90dc821df06bcfae83c90e31b311"},
	{4096, 2, 1<<32 - 8, "54bfc13840ed5770f77f6770db7a8b1b6a13872a90079eb2d8090a632ae3bb1e"},
	{512, 77, 1<<64 - 40, "99c4926ea7d8bb3bc1ff8a58201828323c630ee62587955fd30c7567b543cbd4"},
	{4096, 13, 1<<64 - 40, "92b1347de0d7cf6c5fc67f4b662dea5ce8b6dfee2478fa5f9fb42018530702a8"},
}

// crypter is the shape of an implementation's Encrypt and Decrypt; a test hands in broken ones.
type crypter func(c *Cipher, dst, src []byte, sectorSize int, tweak uint64)

// SelfTest compares every implementation that this machine can run, and AES below, with known answers: both directions, both
// sizes of sector. A daemon must not start when it fails (rule C19).
func SelfTest() error {
	if err := aes256.SelfTest(); err != nil {
		return err
	}
	for _, i := range implementations {
		for _, a := range knownAnswers {
			if err := a.test(i.Encrypt, i.Decrypt); err != nil {
				return fmt.Errorf("xts: self-test of %s with sectors of %d bytes: %w", i, a.sectorSize, err)
			}
		}
	}
	return nil
}

func (a knownAnswer) test(encrypt, decrypt crypter) error {
	key, err := hex.DecodeString(selfTestKey)
	if err != nil {
		return err
	}
	c, err := New(aes256.InsecureMemory(Size), key)
	if err != nil {
		return err
	}
	defer c.Wipe()
	plaintext := make([]byte, a.sectors*a.sectorSize)
	for i := range plaintext {
		plaintext[i] = byte(i)
	}
	got := make([]byte, len(plaintext))
	encrypt(c, got, plaintext, a.sectorSize, a.tweak)
	if sum := sha256.Sum256(got); hex.EncodeToString(sum[:]) != a.sha256 {
		return errors.New("encryption does not give the known answer")
	}
	// The hash has shown that got is the known ciphertext, so that decryption is tested on its own.
	decrypt(c, got, got, a.sectorSize, a.tweak)
	if !bytes.Equal(got, plaintext) {
		return errors.New("decryption does not give the known answer")
	}
	return nil
}
