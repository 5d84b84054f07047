package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// What an automatic slot may take before it is told to stop, and before nobody waits for it any more: one that is dead must
// not hold up the others, nor the start (rule C8).
const (
	slotTime = 3500 * time.Millisecond
	slotEnd  = 4 * time.Second
)

var errNoAnswer = fmt.Errorf("it gave no answer within %v", slotTime)

// opener is a slot that opens without anybody.
type opener struct {
	id, name string
	open     func(context.Context) (*secret.Key, error)
}

// attempt is how an opener ended.
type attempt struct {
	opener
	key *secret.Key
	err error
}

// firstOf tries openers side by side, until one opens the root key, and tells of those that failed before it.
func firstOf(ctx context.Context, all []opener) (won *attempt, failed []attempt) {
	ctx, cancel := context.WithTimeoutCause(ctx, slotTime, errNoAnswer)
	defer cancel()
	ended, over := make(chan attempt), make(chan struct{})
	defer close(over)
	pending := make(map[string]opener, len(all))
	for _, o := range all {
		pending[o.id] = o
		go func() {
			key, err := o.open(ctx)
			select {
			case ended <- attempt{o, key, err}:
			case <-over:
				if err == nil {
					key.Destroy() // too late
				}
			}
		}()
	}
	last := time.After(slotEnd)
	for len(pending) > 0 {
		select {
		case a := <-ended:
			if a.err == nil {
				return &a, failed
			}
			delete(pending, a.id)
			failed = append(failed, a)
		case <-last:
			for _, o := range pending {
				failed = append(failed, attempt{opener: o, err: errNoAnswer})
			}
			return nil, failed
		}
	}
	return nil, failed
}

// keyFileOpener comes before all others: what is wrong with the file itself must be told whatever else opens.
func (r *Root) keyFileOpener() opener {
	return opener{KeyFileSlot, KeyFileSlot, func(context.Context) (*secret.Key, error) { return r.loadFile() }}
}

// automatic are the other slots that open without anybody, but for one.
func (r *Root) automatic(except string) (all []opener, err error) {
	found, err := r.findSlots()
	for _, f := range found {
		if f.bad != nil || !f.way.automatic() || f.id.String() == except {
			continue
		}
		all = append(all, opener{f.id.String(), f.name, func(ctx context.Context) (*secret.Key, error) {
			return r.openSlot(ctx, f.slot, nil, secret.New)
		}})
	}
	return all, err
}

// UnlockAutomatic opens the root key without anybody, and tells by which slot: by the key file, else by whichever of the other
// automatic slots is the first.
func (r *Root) UnlockAutomatic(ctx context.Context) (slot string, err error) {
	slot, _, err = r.unlockAutomatic(ctx)
	return slot, err
}

// unlockAutomatic tells also which slots failed, the key file aside.
func (r *Root) unlockAutomatic(ctx context.Context) (slot string, failed []attempt, err error) {
	if r.token != nil {
		slot, err = r.unlockToken(ctx)
		return slot, nil, err
	}
	won, file := firstOf(ctx, []opener{r.keyFileOpener()})
	if won != nil {
		return won.id, nil, r.adopt(won.key)
	}
	err = file[0].err
	if errors.Is(err, errNoAnswer) {
		err = refusal.New(refusal.Locked, "see what the system's log says of the disk", "the root key file %s can't be read: %w", r.keyFile, err)
	}
	if r.keyFileFatal(err) {
		return "", nil, fullRefusal(err)
	}
	all, errSlots := r.automatic(KeyFileSlot)
	if errSlots != nil {
		return "", nil, err // the slots are said to be missing where it matters
	}
	if won, failed = firstOf(ctx, all); won != nil {
		return won.id, failed, r.adopt(won.key)
	}
	return "", failed, fullRefusal(withWhy(err, failed))
}

// keyFileFatal tells of a key file that is there and whole, and not for us: one that others can read, or of another store. No
// other slot makes that good.
func (r *Root) keyFileFatal(err error) bool {
	return !errors.Is(err, errNoAnswer) && exists(r.keyFile) && refusal.CodeOf(err) != refusal.Damaged
}

// withWhy adds to a refusal why the other slots did not help.
func withWhy(err error, failed []attempt) error {
	for _, a := range failed {
		if errors.Is(a.err, secret.ErrFull) {
			return a.err
		}
		refused := refusal.From(err)
		err = refusal.New(refused.Code, refused.Hint, "%w; slot %s: %w", err, a.name, a.err)
	}
	return err
}

// OtherAutomatic tells whether an automatic slot but one opens the root key now, by trying.
func (r *Root) OtherAutomatic(ctx context.Context, except string) (bool, error) {
	all, err := r.automatic(except)
	if err != nil {
		return false, err
	}
	if except != KeyFileSlot {
		all = append(all, r.keyFileOpener())
	}
	won, _ := firstOf(ctx, all)
	if won != nil {
		won.key.Destroy()
	}
	return won != nil, nil
}
