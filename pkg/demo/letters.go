package demo

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// letter is something that is put on a disk: a file in a file system, or bytes at a place.
type letter struct {
	name string
	at   int64
	text []byte
}

// sum is the text's checksum, as much of it as a line has room for.
func (l letter) sum() string {
	sum := sha256.Sum256(l.text)
	return hex.EncodeToString(sum[:12]) + "…"
}

// letters are what the tour writes and looks for.
type letters struct {
	secret []byte // the words that are looked for; never written before, anywhere
	vault  []letter
	last   letter // what is flushed just before the crash
	word   string // what the server's image says
}

// newLetters makes texts that exist nowhere else, so that finding them means something and not finding them, too.
func newLetters() (letters, error) {
	var once, acorn [8]byte
	photo := make([]byte, 8<<20)
	for _, b := range [][]byte{once[:], acorn[:], photo} {
		if _, err := rand.Read(b); err != nil {
			return letters{}, fmt.Errorf("demo: random bytes: %w", err)
		}
	}
	secret := fmt.Appendf(nil, "the treasure lies under oak %x", once)
	text := bytes.Repeat(append(secret, '\n'), 20000)
	return letters{
		secret: secret,
		// Odd offsets, where there is no file system: unaligned requests are everyday.
		vault: []letter{{"letter.txt", 1<<20 + 1, text}, {"photo.jpg", 64<<20 + 513, photo}},
		last:  letter{"last words", 4<<20 + 7, bytes.Repeat([]byte("flushed just before the crash\n"), 10000)},
		word:  fmt.Sprintf("acorn-%x", acorn),
	}, nil
}

// size is how much is written to the vault.
func (l letters) size() (n int64) {
	for _, one := range l.vault {
		n += int64(len(one.text))
	}
	return n
}
