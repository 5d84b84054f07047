package child

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"time"

	"golang.org/x/crypto/argon2"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// KeySize is the length of what Argon2 gives.
const KeySize = 32

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

// One child runs at a time: each takes as much memory as its parameters say. The time is for a slow machine, swapping.
var argon2Operation = &operation{word: "argon2", request: headSize + maxSalt + MaxPass, answer: KeySize, timeout: 2 * time.Minute,
	turn: make(chan struct{}, 1), do: doArgon2}

// Argon2 is argon2id of a passphrase. The key is the caller's to destroy.
func Argon2(ctx context.Context, pass *secret.Key, p Params, salt []byte) (*secret.Key, error) {
	head, err := argon2Request{p, salt, pass.Bytes()}.head()
	if err != nil {
		return nil, err
	}
	key, err := run(ctx, argon2Operation, secret.Purpose{Kind: "derived", For: "opening or making a passphrase slot"}, head, pass.Bytes())
	if err != nil {
		return nil, explainArgon2(err, p)
	}
	return key, nil
}

func doArgon2(request, answer []byte) (int, error) {
	r, err := parseArgon2(request)
	if err != nil {
		return 0, err
	}
	runtime.GOMAXPROCS(min(runtime.NumCPU(), int(r.Lanes)))
	key := argon2.IDKey(r.pass, r.salt, r.Time, r.Memory, uint8(r.Lanes), KeySize)
	defer clear(key)
	return copy(answer, key), nil
}

// A request is a head of 20 bytes (magic, time, memory, lanes, length of the salt as 2 bytes and that of the passphrase as 2), the
// salt, the passphrase and nothing more. Numbers are big-endian.
const (
	argon2Magic = "ARG1"
	headSize    = 20
)

type argon2Request struct {
	Params
	salt, pass []byte
}

func (r argon2Request) check() error {
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
func (r argon2Request) head() ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, err
	}
	b := []byte(argon2Magic)
	for _, n := range []uint32{r.Time, r.Memory, r.Lanes} {
		b = binary.BigEndian.AppendUint32(b, n)
	}
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.salt)))
	b = binary.BigEndian.AppendUint16(b, uint16(len(r.pass)))
	return append(b, r.salt...), nil
}

// parseArgon2 reads a request. Salt and passphrase are lent from b.
func parseArgon2(b []byte) (r argon2Request, err error) {
	if len(b) < headSize || string(b[:len(argon2Magic)]) != argon2Magic {
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

// explainArgon2 makes a refusal of how a child failed. One that was killed, or gave up allocating, had too little memory.
func explainArgon2(err error, p Params) error {
	var exit *exec.ExitError
	need := fmt.Sprintf("%d MiB of memory", p.Memory>>10)
	switch {
	case errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded):
		return fmt.Errorf("child: computing argon2: %w", err)
	case errors.As(err, &exit):
		return refusal.New(refusal.Failed, "see that "+need+" are free for it (free -m, MemoryMax= of systemd), then try again",
			"the process that computes argon2 ended early: %w", err)
	case errors.As(err, &errSlow{}):
		return refusal.New(refusal.Failed, "see that "+need+" are free for it, so that it need not swap, then try again",
			"the process that computes argon2 was stopped: %w", err)
	}
	return refusal.New(refusal.Failed, "see what the system's log says of it, then try again", "argon2 could not be computed: %w", err)
}
