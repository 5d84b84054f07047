package keystore

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/kit"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const kindRecovery = "recovery"

// recoveryWay takes the secret of a recovery kit, which nothing but the kit holds.
type recoveryWay struct{ count, threshold int }

func parseRecovery(l *lines) way {
	fields := strings.Split(l.next("shares"), " ")
	if len(fields) != 2 {
		l.bad = true
		return recoveryWay{}
	}
	count, errCount := strconv.Atoi(fields[0])
	threshold, errThreshold := strconv.Atoi(fields[1])
	l.check(errCount)
	l.check(errThreshold)
	return recoveryWay{count, threshold}
}

func (w recoveryWay) lines() string { return fmt.Sprintf("shares %d %d\n", w.count, w.threshold) }

func (w recoveryWay) check() error { return kit.CheckSplit(w.count, w.threshold) }

func (w recoveryWay) detail() string {
	if w.count == 1 {
		return "a kit on one sheet"
	}
	return fmt.Sprintf("a kit on %d sheets, any %d of which open it", w.count, w.threshold)
}

func (recoveryWay) automatic() bool { return false }

func (recoveryWay) ready() error { return nil }

func (recoveryWay) release(_ context.Context, given *secret.Key) (*secret.Key, error) {
	return copySecret(given, secret.Purpose{Kind: "derived", For: "opening or making a recovery slot"})
}

// copySecret copies what somebody gave, who wipes it.
func copySecret(given *secret.Key, why secret.Purpose) (*secret.Key, error) {
	own, err := secret.Work(given.Len(), why)
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	secret.Do(func() { move(own.Bytes(), given.Bytes()) })
	return own, nil
}

// kitTag is how a kit's sheets name their slot.
func kitTag(id uuid.UUID) [kit.TagSize]byte { return [kit.TagSize]byte(id[:]) }

// AddRecovery makes a slot that a recovery kit opens, and the kit: its shares, one after the other, which nothing here keeps and
// the caller wipes.
func (r *Root) AddRecovery(ctx context.Context, name string, count, threshold int) (info SlotInfo, shares *secret.Key, err error) {
	if err := kit.CheckSplit(count, threshold); err != nil {
		return info, nil, refusal.New(refusal.Usage, "choose 2 to 16 shares, of which 2 or more are needed, or leave both out for a kit that is not split", "%w", err)
	}
	var given *secret.Key
	info, err = r.addSlot(ctx, kindRecovery, name, func(s slot) (f fresh, err error) {
		f.way = recoveryWay{count, threshold}
		if f.secret, shares, err = makeKit(s.id, count, threshold); err == nil {
			// Proven with what a person would give: the last sheets, as few as will do.
			if given, err = combine(shares.Bytes()[(count-threshold)*kit.ShareSize:]); err != nil {
				f.secret.Destroy()
			}
			f.given = given
		}
		return f, err
	})
	if given != nil {
		given.Destroy()
	}
	if err != nil && shares != nil {
		shares.Destroy()
		shares = nil
	}
	return info, shares, err
}

// makeKit makes a secret and its shares.
func makeKit(id uuid.UUID, count, threshold int) (whole, shares *secret.Key, err error) {
	why := secret.Purpose{Kind: "recovery", ID: id.String(), For: "making a recovery kit"}
	random, err := secret.RandomWork(threshold*kit.SecretSize, why)
	if err != nil {
		return nil, nil, fmt.Errorf("keystore: %w", err)
	}
	defer random.Destroy()
	if whole, err = secret.Work(kit.SecretSize, why); err != nil {
		return nil, nil, fmt.Errorf("keystore: %w", err)
	}
	if shares, err = secret.Work(count*kit.ShareSize, why); err != nil {
		whole.Destroy()
		return nil, nil, fmt.Errorf("keystore: %w", err)
	}
	secret.Do(func() {
		move(whole.Bytes(), random.Bytes())
		err = kit.Split(shares.Bytes(), whole.Bytes(), random.Bytes()[kit.SecretSize:], kitTag(id), threshold)
	})
	if err != nil {
		whole.Destroy()
		shares.Destroy()
		return nil, nil, err
	}
	return whole, shares, nil
}

func combine(shares []byte) (*secret.Key, error) {
	whole, err := secret.Work(kit.SecretSize, secret.Purpose{Kind: "recovery", For: "putting the shares of a recovery kit together"})
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	secret.Do(func() { err = kit.Combine(whole.Bytes(), shares) })
	if err != nil {
		whole.Destroy()
		return nil, err
	}
	return whole, nil
}

// UnlockRecovery opens the root key by the shares of a recovery kit, one after the other, and tells which slot's it is.
func (r *Root) UnlockRecovery(ctx context.Context, shares *secret.Key) (SlotInfo, error) {
	s, key, err := r.openRecovery(ctx, shares, secret.New)
	if err != nil {
		return SlotInfo{}, fullRefusal(err)
	}
	return s.info(), r.adopt(key)
}

// VerifyRecovery tells whether the shares would open the root key, which stays as it is.
func (r *Root) VerifyRecovery(ctx context.Context, shares *secret.Key) (SlotInfo, error) {
	s, key, err := r.openRecovery(ctx, shares, secret.Work)
	if err != nil {
		return SlotInfo{}, fullRefusal(err)
	}
	key.Destroy()
	return s.info(), nil
}

func (r *Root) openRecovery(ctx context.Context, shares *secret.Key, memory func(int, secret.Purpose) (*secret.Key, error)) (s foundSlot, key *secret.Key, err error) {
	head, err := checkShares(shares.Bytes())
	if err != nil {
		return s, nil, err
	}
	if s, err = r.kitSlot(head.Tag); err != nil {
		return s, nil, err
	}
	whole, err := combine(shares.Bytes())
	if err != nil {
		return s, nil, err
	}
	defer whole.Destroy()
	if key, err = r.openSlot(ctx, s.slot, whole, memory); errors.Is(err, errBlob) {
		return s, nil, refusal.New(refusal.Locked, "type the sheets again, and take others where there are more: each line fits, but one that was altered as a whole does too",
			"the recovery kit does not open slot %s: %w", s.name, err)
	}
	return s, key, err
}

// checkShares looks at what shares say of themselves: each mistake has its own words.
func checkShares(shares []byte) (first kit.Head, err error) {
	bad := func(hint, format string, args ...any) (kit.Head, error) {
		return first, refusal.New(refusal.Usage, hint, format, args...)
	}
	if len(shares) == 0 || len(shares)%kit.ShareSize != 0 {
		return bad("use a client of this daemon's version", "%d bytes are not shares of a recovery kit", len(shares))
	}
	var numbers []int
	for share := range slices.Chunk(shares, kit.ShareSize) {
		head, err := kit.HeadOf(share)
		switch {
		case err != nil:
			return bad("type it as it is printed", "%w", err)
		case len(numbers) == 0:
			first = head
		case head.Tag != first.Tag:
			return bad("take sheets that name the same slot", "share %d is of another recovery kit (slot %x…) than share %d (slot %x…)",
				head.Number, head.Tag, first.Number, first.Tag)
		case head.Threshold != first.Threshold || head.Count != first.Count:
			return bad("type it as it is printed", "share %d is one of %d, and share %d one of %d", head.Number, head.Count, first.Number, first.Count)
		case slices.Contains(numbers, head.Number):
			return bad("take another sheet of the kit", "share %d was given twice", head.Number)
		}
		numbers = append(numbers, head.Number)
	}
	if len(numbers) < first.Threshold {
		return bad("give the others with them", "the recovery kit opens with %d shares, and %d were given", first.Threshold, len(numbers))
	}
	return first, nil
}

// kitSlot finds the slot that a kit's sheets name.
func (r *Root) kitSlot(tag [kit.TagSize]byte) (foundSlot, error) {
	found, err := r.findSlots()
	if err != nil {
		return foundSlot{}, err
	}
	for _, f := range found {
		switch {
		case kitTag(f.id) != tag:
		case f.bad != nil:
			return f, refusal.New(refusal.Damaged, "restore it from a backup of the state directory", "the slot of this recovery kit, %s, opens nothing: %w", f.id, f.bad)
		case f.kind == kindRecovery:
			return f, nil
		}
	}
	return foundSlot{}, refusal.New(refusal.Locked, "`nbdcrypt root slot list` lists the slots, and each sheet names the store and the slot that it is of",
		"no slot of store %s belongs to this recovery kit (slot %x…): it is of another store, or its slot was removed", r.Store, tag)
}
