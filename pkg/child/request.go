package child

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Params are what argon2id costs (RFC 9106): passes over memory, KiB of memory, and lanes.
type Params struct{ Time, Memory, Lanes uint32 }

// The limits of what a child computes. Memory stays far below what would bring a small machine down.
const (
	MaxTime   = 32
	MaxMemory = 1 << 20
	MaxLanes  = 16
	MaxPass   = 1024
	maxSalt   = 64
)

// A request is a head of 20 bytes (magic, time, memory, lanes, length of the salt as 2 bytes and that of the passphrase as 2), the
// salt, the passphrase and nothing more. Numbers are big-endian.
const (
	magic      = "ARG1"
	headSize   = 20
	maxRequest = headSize + maxSalt + MaxPass
)

type request struct {
	Params
	salt, pass []byte
}

var errRequest = errors.New("child: it is no request")

func (r request) check() error {
	switch {
	case r.Time < 1 || r.Time > MaxTime || r.Lanes < 1 || r.Lanes > MaxLanes || r.Memory < 8*r.Lanes || r.Memory > MaxMemory:
		return fmt.Errorf("%w: argon2id of %+v", errRequest, r.Params)
	case len(r.salt) < 8 || len(r.salt) > maxSalt:
		return fmt.Errorf("%w: a salt of %d bytes", errRequest, len(r.salt))
	case len(r.pass) < 1 || len(r.pass) > MaxPass:
		return fmt.Errorf("%w: a passphrase of %d bytes", errRequest, len(r.pass))
	}
	return nil
}

// head is everything before the passphrase.
func (r request) head() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b := []byte(magic)
	for _, n := range []uint32{r.Time, r.Memory, r.Lanes} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.salt)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.pass)))
	return append(b, r.salt...), nil
}

// parse reads a request. Salt and passphrase are lent from b.
func parse(b []byte) (r request, err error) {
	if len(b) < headSize || string(b[:len(magic)]) != magic {
		return r, fmt.Errorf("%w: it has %d bytes, or begins otherwise", errRequest, len(b))
	}
	number := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	r.Params = Params{number(4), number(8), number(12)}
	salt, pass := int(binary.BigEndian.Uint16(b[16:])), int(binary.BigEndian.Uint16(b[18:]))
	if len(b) != headSize+salt+pass {
		return r, fmt.Errorf("%w: %d bytes do not hold a salt of %d and a passphrase of %d", errRequest, len(b), salt, pass)
	}
	r.salt, r.pass = b[headSize:headSize+salt], b[headSize+salt:]
	return r, r.check()
}

// An answer is a byte: 0 and the key after it, or 1 and words that say why there is none.
const (
	answerKey  = 0
	answerWhy  = 1
	maxFailure = 500
)

// readAnswer reads the key straight into where it stays.
func readAnswer(from io.Reader, key []byte) error {
	var kind [1]byte
	if _, err := io.ReadFull(from, kind[:]); err != nil {
		return fmt.Errorf("child: its answer: %w", err)
	}
	if kind[0] != answerKey {
		why, err := io.ReadAll(io.LimitReader(from, maxFailure))
		return errors.Join(fmt.Errorf("%.*q", maxFailure, why), err)
	}
	if _, err := io.ReadFull(from, key); err != nil {
		return fmt.Errorf("child: its answer: %w", err)
	}
	return nil
}
