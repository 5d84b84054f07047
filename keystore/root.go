package keystore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/token"
)

// Names in the state directory.
const (
	storeFile  = "store"
	firstFile  = "store.new"
	EraseFile  = "erase"
	CatalogDir = "catalog"
	AuditFile  = "audit.log"
)

// Root is a store's root key, open or locked. Its methods may be called from many goroutines.
type Root struct {
	// Store is the store's id.
	Store uuid.UUID
	// Made tells that the root key file was made by this call: the person should back it up.
	Made bool
	// First tells that the store is not complete yet: its catalog, log and erase file may be made. Open of the key
	// store completes it.
	First bool
	// Failed says of each automatic slot, but the key file, why it did not open the root key at the start.
	Failed []string

	place
	header header
	// making is held by what makes a slot, for as long as a device or a library takes.
	making sync.Mutex
	// ways is held by what changes which slots there are, and by Lock, which asks. It is taken after making.
	ways sync.Mutex
	// mu is held for reading by whoever uses the root key, and never while a catalog is read.
	mu  sync.RWMutex
	key *secret.Key // nil while locked
	// values is the catalog key: what HKDF extracts from the root key without a salt. Every value of the catalog is sealed
	// under a key derived from it, and no CMK, since those are wrapped with an erase key as salt. So it stays when the
	// root key is locked, and what is known of disks and keys can be read on.
	values *secret.Key // nil before the root key was first open
}

// place is where a store is, and what it opens by at a start.
type place struct {
	keyFile  string
	stateDir string
	// token holds the store in the place of a root key file; key is the local key then. It is nil for other stores.
	token tokenKey
}

// rootPurpose is why a root key is in memory.
func rootPurpose(store uuid.UUID) secret.Purpose {
	return secret.Purpose{Kind: "root", ID: store.String(), For: "opening CMKs"}
}

// valuesPurpose is why a catalog key is in memory.
func valuesPurpose(store uuid.UUID) secret.Purpose {
	return secret.Purpose{Kind: "catalog", ID: store.String(), For: "reading and sealing the catalog"}
}

// Close wipes the root key and the catalog key.
func (r *Root) Close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range []**secret.Key{&r.key, &r.values} {
		if *k != nil {
			(*k).Destroy()
			*k = nil
		}
	}
}

// OpenRoot opens the root key of the store in stateDir, which exists, and makes both on first use. For keyFile there may be the URI of
// a key on a token: a new store is held by that token then. The root key is locked
// where the key file can't open it and another slot can. Every failure is a refusal: Locked where the right key is not
// there, Damaged where a file is not as it was written.
func OpenRoot(keyFile, stateDir string) (*Root, error) {
	root, err := openRoot(keyFile, stateDir)
	var refused *refusal.Error
	err = fullRefusal(err)
	if err != nil && !errors.As(err, &refused) {
		return nil, refusal.New(refusal.Failed, "see that the daemon's user may write there, and that the disk is not full", "%w", err)
	}
	return root, err
}

// fullRefusal makes a refusal of key memory that is full.
func fullRefusal(err error) error {
	if errors.Is(err, secret.ErrFull) {
		return refusal.New(refusal.Failed, "raise the limit of locked memory (LimitMEMLOCK, ulimit -l)", "the root key can't be held: %w", err)
	}
	return err
}

func openRoot(keyFile, stateDir string) (*Root, error) {
	if token.IsURI(keyFile) {
		k, err := parseToken(keyFile, stateDir)
		if err != nil {
			return nil, err
		}
		return openPlace(place{stateDir: stateDir, token: k})
	}
	if err := checkOutside(keyFile, stateDir); err != nil {
		return nil, err
	}
	return openPlace(place{keyFile: keyFile, stateDir: stateDir})
}

func openPlace(p place) (*Root, error) {
	store, first := filepath.Join(p.stateDir, storeFile), filepath.Join(p.stateDir, firstFile)
	switch {
	case exists(store):
		return openExisting(p, store, false)
	case exists(first) && (exists(p.keyFile) || trace(p.stateDir) != ""):
		return openExisting(p, first, true)
	}
	if err := checkVirgin(p.keyFile, p.stateDir, exists(first)); err != nil {
		return nil, err
	}
	root, err := makeRoot(p)
	switch {
	case err == nil:
		return root, nil
	case p.token != nil:
		return nil, fmt.Errorf("making a store that a token holds: %w", err)
	}
	return nil, fmt.Errorf("keystore: making the root key file %s: %w", p.keyFile, err)
}

// checkVirgin refuses to make a root key where traces say that there was one.
func checkVirgin(keyFile, stateDir string, started bool) error {
	if path := trace(stateDir); !started && path != "" {
		return refusal.New(refusal.Damaged, "restore the file from a backup of the state directory",
			"%s is missing, and %s is there", filepath.Join(stateDir, storeFile), path)
	}
	if exists(keyFile) {
		return refusal.New(refusal.Locked, "is the state directory mounted? For a new store name another file with --root-key",
			"the root key file %s belongs to a store, and %s holds none", keyFile, stateDir)
	}
	return nil
}

// trace finds something in the state directory that only an open root key could have led to.
func trace(stateDir string) string {
	for _, name := range []string{EraseFile, CatalogDir, AuditFile, SlotsDir} {
		if path := filepath.Join(stateDir, name); exists(path) {
			return path
		}
	}
	return ""
}

// makeRoot makes header and root key. The header is first: a key file without one means a state directory that is
// missing, and no key file is ever made for a header that is complete.
func makeRoot(p place) (*Root, error) {
	store, err := uuid.NewRandom()
	if err != nil {
		return nil, err
	}
	key, err := secret.Random(keySize, rootPurpose(store))
	if err != nil {
		return nil, err
	}
	root := &Root{Store: store, Made: true, First: true, place: p}
	if err := root.adopt(key); err != nil {
		return nil, err
	}
	if err := root.write(); err != nil {
		root.Close()
		return nil, err
	}
	return root, nil
}

// write makes the header of a root key that was just made, and its key file, unless a token holds it.
func (r *Root) write() (err error) {
	if r.header, err = newHeader(r.key, r.Store); err != nil {
		return err
	}
	if r.token != nil {
		if err := r.sealLocal(); err != nil {
			return err
		}
	}
	head, err := r.header.encode()
	if err != nil {
		return err
	}
	if err := replaceFile(filepath.Join(r.stateDir, firstFile), head); err != nil || r.token != nil {
		return err
	}
	return r.writeKeyFile()
}

// writeKeyFile makes the key file, where there is none.
func (r *Root) writeKeyFile() error {
	if err := os.MkdirAll(filepath.Dir(r.keyFile), 0o700); err != nil {
		return err
	}
	text, err := secret.Work(maxTextFile, rootText)
	if err != nil {
		return err
	}
	defer text.Destroy()
	var n int
	err = r.use(func(root []byte) (err error) {
		secret.Do(func() { n, err = writeText(text.Bytes(), rootKind, "key", r.Store, root) })
		return err
	})
	if err != nil {
		return err
	}
	return linkNew(r.keyFile, text.Bytes()[:n])
}

// openExisting opens the root key that the header names.
func openExisting(p place, headerFile string, first bool) (*Root, error) {
	h, err := readHeader(headerFile)
	if err != nil {
		return nil, err
	}
	root := &Root{Store: h.store, First: first, place: p, header: h}
	if err := root.checkHolder(); err != nil {
		return nil, err
	}
	if err := root.openAtStart(); err != nil {
		return nil, err
	}
	return root, nil
}

func readHeader(path string) (header, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return header{}, refusal.New(refusal.Damaged, "see that the daemon's user may read it", "the store's header can't be read: %w", err)
	}
	h, err := parseHeader(b)
	if err != nil {
		return header{}, refusal.New(refusal.Damaged, "restore the file from a backup of the state directory",
			"the store's header %s is damaged: %w", path, err)
	}
	return h, nil
}

// complete ends the first start: from now on nothing of the store is ever made anew.
func (r *Root) complete() error {
	err := os.Rename(filepath.Join(r.stateDir, firstFile), filepath.Join(r.stateDir, storeFile))
	if err == nil {
		err = durable.Dir(r.stateDir)
	}
	if err != nil {
		return fmt.Errorf("keystore: complete the store: %w", err)
	}
	r.First = false
	return nil
}
