package keystore

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// SlotsDir holds the slots that are files in the state directory.
const SlotsDir = "slots"

// KeyFileSlot is the id and the kind of the slot that the key file is.
const KeyFileSlot = "key-file"

// SlotInfo is what may be told of a slot.
type SlotInfo struct {
	ID   string
	Kind string
	Name string
	// Detail is how it opens, or why it can't.
	Detail string
	// Automatic tells that it opens at start, without anybody.
	Automatic bool
	// Present tells that it is there and whole.
	Present bool
	Created time.Time
}

// foundSlot is a slot's file with why it opens nothing, if so.
type foundSlot struct {
	slot
	bad error
}

func (f foundSlot) info() SlotInfo {
	i := SlotInfo{ID: f.id.String(), Kind: f.kind, Name: f.name, Created: f.created}
	if f.bad != nil {
		i.Detail = "it opens nothing: " + f.bad.Error()
		return i
	}
	i.Detail, i.Automatic, i.Present = f.way.detail(), f.way.automatic(), true
	if err := f.way.ready(); err != nil {
		i.Detail, i.Present = i.Detail+": "+err.Error(), false
	}
	return i
}

// Slots lists what could open the root key, and what should and can't; locked or not.
func (r *Root) Slots() ([]SlotInfo, error) {
	if r.token != nil {
		return []SlotInfo{r.tokenInfo()}, nil
	}
	found, err := r.findSlots()
	if err != nil {
		return nil, err
	}
	infos := []SlotInfo{r.keyFileInfo()}
	for _, f := range found {
		infos = append(infos, f.info())
	}
	return infos, nil
}

func (r *Root) keyFileInfo() SlotInfo {
	i := SlotInfo{ID: KeyFileSlot, Kind: KeyFileSlot, Name: KeyFileSlot, Detail: r.keyFile, Automatic: true}
	st, err := os.Lstat(r.keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		i.Detail += " is missing"
		return i
	}
	if err == nil {
		i.Created = fileTime(st)
	}
	key, err := r.loadFile()
	if err != nil {
		i.Detail = "it opens nothing: " + err.Error()
		return i
	}
	key.Destroy()
	i.Present = true
	return i
}

func (r *Root) slotsDir() string { return filepath.Join(r.stateDir, SlotsDir) }

func (r *Root) slotPath(id uuid.UUID) string { return filepath.Join(r.slotsDir(), id.String()) }

// findSlots reads every slot's file, the oldest first.
func (r *Root) findSlots() (found []foundSlot, err error) {
	entries, err := os.ReadDir(r.slotsDir())
	if errors.Is(err, fs.ErrNotExist) && !exists(r.slotsDir()) {
		return nil, nil
	}
	if err != nil {
		return nil, refusal.New(refusal.Failed, "see that it is a folder, and that the daemon's user may read it", "the slots can't be listed: %w", err)
	}
	for _, e := range entries {
		if isUUID(e.Name()) {
			found = append(found, r.readSlot(uuid.MustParse(e.Name())))
		}
	}
	slices.SortStableFunc(found, func(a, b foundSlot) int {
		return cmp.Or(a.created.Compare(b.created), cmp.Compare(a.id.String(), b.id.String()))
	})
	return found, nil
}

// readSlot reads the file of one slot and holds it against its place.
func (r *Root) readSlot(id uuid.UUID) foundSlot {
	s, err := readSlotFile(r.slotPath(id))
	switch {
	case err != nil:
	case s.id != id:
		err = fmt.Errorf("it is the file of slot %s", s.id)
	case s.store != r.Store:
		err = fmt.Errorf("it is of store %s, and this store is %s", s.store, r.Store)
	}
	s.id = id
	return foundSlot{s, err}
}

func readSlotFile(path string) (slot, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return slot{}, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return slot{}, errors.Join(errors.New("it is not a regular file"), err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxTextFile+1))
	if err != nil {
		return slot{}, err
	}
	s, err := parseSlotFile(b)
	if s.created.IsZero() {
		s.created = fileTime(st) // it is damaged; this helps to tell which one it was
	}
	return s, err
}

func fileTime(st fs.FileInfo) time.Time { return st.ModTime().UTC().Truncate(time.Second) }

// Reopens refuses where no slot could open the root key again once it is closed: what is in memory is all there is of it. It tries
// none that takes its time.
func (r *Root) Reopens() error { return r.otherWay("", r.readySlot) }

// otherWay refuses where no slot but the one named could open the root key. look looks at those that are files.
func (r *Root) otherWay(except string, look func(except string) (bad []string, err error)) error {
	if r.token != nil {
		return nil // a token that is away may come back, and locking must not need it
	}
	var why []string
	hint := "run `nbdcrypt root slot add passphrase` first"
	if except != KeyFileSlot {
		key, err := r.loadFile()
		if err == nil {
			key.Destroy()
			return nil
		}
		why = append(why, err.Error())
		hint += ", or put the root key file back at " + r.keyFile
	}
	bad, err := look(except)
	if err != nil || bad == nil {
		return err
	}
	why = append(why, bad...)
	if len(why) == 0 {
		why = append(why, "there is no other slot")
	}
	return refusal.New(refusal.Busy, hint, "nothing else could open the root key again: %s", strings.Join(why, "; "))
}

// slotWhere looks for a slot's file, but for the one named, that is whole, and has nothing wrong with it; bad is nil where there is
// one, else says of each what is wrong with it.
func (r *Root) slotWhere(except string, wrong func(slot) error) (bad []string, err error) {
	found, err := r.findSlots()
	bad = []string{}
	for _, f := range found {
		if f.id.String() == except {
			continue
		}
		why := f.bad
		if why == nil {
			why = wrong(f.slot)
		}
		if why == nil {
			return nil, nil
		}
		bad = append(bad, fmt.Sprintf("slot %s opens nothing: %v", f.id, why))
	}
	return bad, err
}

func (r *Root) wholeSlot(except string) (bad []string, err error) {
	return r.slotWhere(except, func(slot) error { return nil })
}

func (r *Root) readySlot(except string) (bad []string, err error) {
	return r.slotWhere(except, func(s slot) error { return s.way.ready() })
}

// provenSlot looks for one that a person opens, and tries those that open by themselves: a TPM that is there may have other registers
// by now.
func (r *Root) provenSlot(ctx context.Context, except string) (bad []string, err error) {
	tried := map[string]error{}
	wrong := func(s slot) error {
		if s.way.automatic() {
			return cmp.Or(tried[s.id.String()], errNoAnswer)
		}
		return nil
	}
	if bad, err = r.slotWhere(except, wrong); err != nil || len(bad) == 0 {
		return bad, err
	}
	all, err := r.automatic(except)
	if err != nil {
		return nil, err
	}
	won, failed := firstOf(ctx, all)
	if won != nil {
		won.key.Destroy()
		return nil, nil
	}
	for _, a := range failed {
		tried[a.id] = a.err
	}
	return r.slotWhere(except, wrong)
}
