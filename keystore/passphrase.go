package keystore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	// MinPassphrase and MaxPassphrase bound a passphrase's bytes.
	MinPassphrase = 8
	MaxPassphrase = child.MaxPass

	kindPassphrase = "passphrase"
	saltSize       = 16
)

// What new passphrase slots cost, and the bounds of what is opened: a file that somebody weakened is refused, and so is one
// that would take all memory (docs/keystore-format.md). Tests lower them.
var (
	newCost   = child.Params{Time: 3, Memory: 256 << 10, Lanes: 4}
	leastCost = child.Params{Time: 3, Memory: 64 << 10, Lanes: 1}
	mostCost  = child.Params{Time: 16, Memory: 1 << 20, Lanes: 8}
)

// passphraseWay takes argon2id of a passphrase.
type passphraseWay struct {
	cost child.Params
	salt []byte
}

func parsePassphrase(l *lines) way {
	return passphraseWay{l.cost("argon2id"), l.hex("salt", saltSize)}
}

func (w passphraseWay) lines() string {
	return fmt.Sprintf("argon2id %d %d %d\nsalt %x\n", w.cost.Time, w.cost.Memory, w.cost.Lanes, w.salt)
}

func (w passphraseWay) check() error {
	c := w.cost
	switch {
	case c.Time < leastCost.Time || c.Memory < leastCost.Memory || c.Lanes < leastCost.Lanes:
		return fmt.Errorf("argon2id with %d passes over %d KiB is too weak: at least %d passes over %d KiB are taken",
			c.Time, c.Memory, leastCost.Time, leastCost.Memory)
	case c.Time > mostCost.Time || c.Memory > mostCost.Memory || c.Lanes > mostCost.Lanes:
		return fmt.Errorf("argon2id with %d passes over %d KiB in %d lanes takes too much: at most %d passes over %d KiB in %d lanes are done",
			c.Time, c.Memory, c.Lanes, mostCost.Time, mostCost.Memory, mostCost.Lanes)
	}
	return nil
}

func (w passphraseWay) detail() string {
	return fmt.Sprintf("argon2id, %d passes over %d MiB", w.cost.Time, w.cost.Memory>>10)
}

func (passphraseWay) automatic() bool { return false }

func (passphraseWay) ready() error { return nil }

func (w passphraseWay) release(ctx context.Context, pass *secret.Key) (*secret.Key, error) {
	if n := pass.Len(); n < MinPassphrase || n > MaxPassphrase {
		return nil, errBlob // no slot was made with it
	}
	return child.Argon2(ctx, pass, w.cost, w.salt)
}

// UnlockPassphrase opens the root key by whichever slot the passphrase opens, and tells which.
func (r *Root) UnlockPassphrase(ctx context.Context, pass *secret.Key) (SlotInfo, error) {
	return r.unlockGiven(ctx, kindPassphrase, pass, nothing{
		refusal.New(refusal.Locked, "`nbdcrypt root slot list` shows what could open it", "no slot of this store takes a passphrase"),
		refusal.New(refusal.Locked, "type it as it was set, byte for byte; `nbdcrypt root slot list` shows the slots", "the passphrase opens no slot")})
}

// AddPassphrase makes a slot that the passphrase opens. It was opened once before it counts.
func (r *Root) AddPassphrase(ctx context.Context, name string, pass *secret.Key) (SlotInfo, error) {
	if n := pass.Len(); n < MinPassphrase || n > MaxPassphrase {
		return SlotInfo{}, errors.Join(r.needOpen(), refusal.New(refusal.Usage, fmt.Sprintf("choose one of %d to %d bytes", MinPassphrase, MaxPassphrase),
			"a passphrase of %d bytes is not taken", n))
	}
	return r.addSlot(ctx, kindPassphrase, name, func(slot) (fresh, error) {
		w := passphraseWay{newCost, make([]byte, saltSize)}
		rand.Read(w.salt)
		wrapping, err := w.release(ctx, pass)
		return fresh{w, wrapping, pass}, err
	})
}

func (l *lines) cost(word string) (p child.Params) {
	fields := strings.Split(l.next(word), " ")
	if len(fields) != 3 {
		l.bad = true
		return p
	}
	for i, n := range []*uint32{&p.Time, &p.Memory, &p.Lanes} {
		v, err := strconv.ParseUint(fields[i], 10, 32)
		l.check(err)
		*n = uint32(v)
	}
	return p
}
