package keystore

import (
	"cmp"
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
	i := SlotInfo{ID: f.id.String(), Kind: f.kind, Name: f.name, Present: f.bad == nil, Created: f.created}
	if f.bad != nil {
		i.Detail = "it opens nothing: " + f.bad.Error()
	} else {
		i.Detail = fmt.Sprintf("argon2id, %d passes over %d MiB", f.cost.Time, f.cost.Memory>>10)
	}
	return i
}

// Slots lists what could open the root key, and what should and can't; locked or not.
func (r *Root) Slots() ([]SlotInfo, error) {
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

// Reopens refuses where no slot could open the root key again once it is closed: what is in memory is all there is of it.
func (r *Root) Reopens() error { return r.otherWay("") }

// otherWay refuses where no slot but the one named could open the root key.
func (r *Root) otherWay(except string) error {
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
	bad, err := r.wholeSlot(except)
	if err != nil || bad == nil {
		return err
	}
	why = append(why, bad...)
	if len(why) == 0 {
		why = append(why, "there is no other slot")
	}
	return refusal.New(refusal.Busy, hint, "nothing else could open the root key again: %s", strings.Join(why, "; "))
}

// wholeSlot looks for a slot's file, but for the one named, that is whole; bad is nil where there is one, else says of each
// what is wrong with it.
func (r *Root) wholeSlot(except string) (bad []string, err error) {
	found, err := r.findSlots()
	bad = []string{}
	for _, f := range found {
		switch {
		case f.id.String() == except:
		case f.bad == nil:
			return nil, nil
		default:
			bad = append(bad, fmt.Sprintf("slot %s opens nothing: %v", f.id, f.bad))
		}
	}
	return bad, err
}
