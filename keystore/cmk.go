package keystore

import (
	"cmp"
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"syscall"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// MaxKeys is how many CMKs users may make in a project; default keys don't count (rule B5).
const MaxKeys = 100

// Where a CMK's material comes from.
const (
	OriginGenerated = "generated"
	OriginImported  = "imported"
)

// aliasRule is rule B4.
var aliasRule = regexp.MustCompile(`^[a-zA-Z0-9:/_-]{1,255}$`)

// Info is what may be told of a CMK.
type Info struct {
	ID      string
	Alias   string
	Project string
	Region  string
	State   State
	Default bool
	Origin  string
	// Version is the newest version of its key material; 0 where there is none.
	Version      int
	Created      time.Time
	Description  string
	Tags         map[string]string
	Deletion     *time.Time
	RotationDays int
	// Expires is when imported key material is deleted; nil for never.
	Expires *time.Time
	// Unreadable tells that its record is damaged: then there is an id, at best an alias, and nothing else.
	Unreadable bool
}

func (c cmkRecord) info() Info {
	if c.Version == 0 {
		return Info{}
	}
	i := Info{ID: c.ID.String(), Alias: c.Alias, Project: c.Project, Region: c.Region, State: c.State, Default: c.Default, Origin: c.Origin,
		Created: c.Created, Description: c.Description, Tags: c.Tags, Deletion: c.Deletion, RotationDays: c.RotationDays}
	if len(c.Versions) > 0 {
		i.Version = int(c.newest().Number)
		if c.Import != nil {
			i.Expires = c.Import.Expires
		}
	}
	return i
}

// purpose is why a CMK is in memory.
func (c cmkRecord) purpose() secret.Purpose {
	return secret.Purpose{Kind: "cmk", ID: c.ID.String(), For: "one wrap or unwrap"}
}

// name is how a refusal calls the key.
func (c cmkRecord) name() string { return c.info().name() }

// KeySpec is what a new CMK should be.
type KeySpec struct {
	Alias, Description string
	Tags               map[string]string
	// Origin is where its key material comes from; empty for OriginGenerated. One for imported material is Pending import.
	Origin string
}

func (k KeySpec) check() error {
	if k.Origin != OriginGenerated && k.Origin != OriginImported {
		return refusal.New(refusal.Usage, "use "+OriginGenerated+" or "+OriginImported, "key material can't be %.100q", k.Origin)
	}
	for _, check := range []error{checkAlias(k.Alias), checkDescription(k.Description), checkTags(k.Tags)} {
		if check != nil {
			return check
		}
	}
	return nil
}

// CreateKey makes a CMK. Asked again with the same request id it answers with the key that it made then.
func (s *Store) CreateKey(ctx context.Context, request, project string, spec KeySpec) (Info, error) {
	spec.Origin = cmp.Or(spec.Origin, OriginGenerated)
	if err := spec.check(); err != nil {
		return Info{}, err
	}
	alias := spec.Alias
	s.making.Lock()
	defer s.making.Unlock()
	done, err := s.c.Catalog.Outcome(ctx, request)
	if err != nil {
		return Info{}, damaged(err)
	}
	if done {
		// The request may have done something else as well; only the key itself tells.
		if info, err := s.Key(ctx, project, alias); err == nil {
			return info, nil
		}
	}
	// Once before a slot is spent on it, and once more in the commit.
	allowed := func(r catalog.Reader) error { return s.mayCreate(r, project, alias) }
	if err := s.c.Catalog.View(ctx, allowed); err != nil {
		return Info{}, damaged(err)
	}
	rec, err := s.makeCMK(ctx, request, cmkRecord{Alias: alias, Project: project, Origin: spec.Origin, Description: spec.Description, Tags: spec.Tags},
		func(t catalog.Txn) error { return allowed(t) })
	return rec.info(), damaged(err)
}

func checkAlias(alias string) error {
	if !aliasRule.MatchString(alias) {
		return refusal.New(refusal.Usage, "use 1 to 255 letters, digits, ':', '/', '_' or '-'", "%.300q can't be a key's alias", alias)
	}
	if strings.HasSuffix(alias, "/default") {
		return refusal.New(refusal.Usage, "choose an alias that does not end in /default", "the alias %s is reserved: only default keys end in /default", alias)
	}
	return nil
}

func (s *Store) mayCreate(r catalog.Reader, project, alias string) error {
	if err := s.needGrant(r, project); err != nil {
		return err
	}
	// The default key has an alias there too.
	aliases, err := r.Names(aliasPrefix(s.c.Region, project), "", MaxKeys+1)
	if err != nil {
		return err
	}
	users := 0
	for _, name := range aliases {
		if !strings.HasSuffix(name, "/default") {
			users++
		}
	}
	if err := s.aliasFree(r, project, alias); err != nil {
		return err
	}
	if users >= MaxKeys {
		return refusal.New(refusal.Busy, "put the disk under a key that is there already: one key serves many disks",
			"project %s has %d keys, and no more are allowed", project, users)
	}
	return nil
}

// makeCMK makes a CMK of what rec says, and commits it together with what also does.
func (s *Store) makeCMK(ctx context.Context, request string, rec cmkRecord, also func(catalog.Txn) error) (cmkRecord, error) {
	if err := s.c.Root.needOpen(); err != nil {
		return rec, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return rec, fmt.Errorf("keystore: %w", err)
	}
	rec.Version, rec.ID, rec.Region, rec.Created = recordVersion, id, s.c.Region, s.c.Clock.Now()
	if rec.Origin == OriginGenerated {
		return s.makeMaterial(ctx, request, rec, also)
	}
	rec.State = PendingImport
	return rec, s.update(ctx, request, func(t catalog.Txn) error { return s.putCMK(t, rec, also) })
}

// makeMaterial is makeCMK for key material that is made here. The erase slot is durable before the record that names it; where
// the commit fails for certain it is given back.
func (s *Store) makeMaterial(ctx context.Context, request string, rec cmkRecord, also func(catalog.Txn) error) (cmkRecord, error) {
	slot, eraseKey, err := s.erase.allocate(rec.ID)
	if err != nil {
		return rec, noRoomForKey(err)
	}
	defer eraseKey.Destroy()
	rec.State, rec.Slot = Enabled, slot
	wrapped, err := s.generateCMK(rec, 1, eraseKey)
	if err == nil {
		rec.Versions = []cmkVersion{{1, rec.Created, wrapped}}
		err = s.update(ctx, request, func(t catalog.Txn) error { return s.putCMK(t, rec, also) })
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {
		err = errors.Join(err, s.erase.destroy(slot, rec.ID))
	}
	return rec, err
}

// noRoomForKey makes a refusal of a full file system.
func noRoomForKey(err error) error {
	if errors.Is(err, syscall.ENOSPC) {
		return refusal.New(refusal.Failed, "make room in the file system of the state directory, then try again", "no space left for a key: %w", err)
	}
	return err
}

func (s *Store) putCMK(t catalog.Txn, rec cmkRecord, also func(catalog.Txn) error) error {
	if err := also(t); err != nil {
		return err
	}
	if err := t.Put(aliasPrefix(rec.Region, rec.Project)+rec.Alias, []byte(rec.ID.String())); err != nil {
		return err
	}
	return putJSON(t, rec.key(), rec)
}

func (s *Store) cmkIdentity(c cmkRecord, version uint32) identity {
	return newIdentity("nbdcrypt/v1/cmk", s.c.Root.Store).text(c.Region).text(c.Project).id(c.ID).number(version)
}

// generateCMK makes the material of a version and wraps it under root key and erase key.
func (s *Store) generateCMK(c cmkRecord, version uint32, eraseKey *secret.Key) (wrapped []byte, err error) {
	key, err := secret.RandomWork(keySize, c.purpose())
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	defer key.Destroy()
	return s.wrapCMK(c, version, eraseKey, key)
}

// wrapCMK wraps the material of a version, and opens what it made before anything depends on it.
func (s *Store) wrapCMK(c cmkRecord, version uint32, eraseKey, key *secret.Key) (wrapped []byte, err error) {
	err = s.c.Root.use(func(root []byte) error {
		wrapped, err = sealBlob(material{key: root, salt: eraseKey.Bytes()}, s.cmkIdentity(c, version), key.Bytes())
		return err
	})
	if err == nil {
		wrapped, err = s.c.Root.wrapOuter(s.cmkIdentity(c, version), wrapped)
	}
	if err != nil {
		return nil, err
	}
	c.Versions = []cmkVersion{{Number: version, Wrapped: wrapped}}
	return wrapped, s.withCMK(c, version, func(again []byte) error {
		same := false
		secret.Do(func() { same = subtle.ConstantTimeCompare(again, key.Bytes()) == 1 })
		if !same {
			return fmt.Errorf("%w: new key material opens to other bytes", errBlob)
		}
		return nil
	})
}

// withCMK runs fn with one version of a CMK open, which Lock waits for. It asks nothing about the state, and fn reads no
// catalog.
func (s *Store) withCMK(c cmkRecord, version uint32, fn func(cmk []byte) error) error {
	v, err := c.version(version)
	if err != nil {
		return err
	}
	wrapped, err := s.c.Root.unwrapOuter(s.cmkIdentity(c, version), v.Wrapped)
	if err != nil {
		return fmt.Errorf("CMK %s version %d: %w", c.ID, version, err)
	}
	return s.c.Root.use(func(root []byte) error {
		eraseKey, err := s.erase.read(c.Slot, c.ID)
		if err != nil {
			return err
		}
		defer eraseKey.Destroy()
		key, err := secret.Work(keySize, c.purpose())
		if err != nil {
			return fmt.Errorf("keystore: %w", err)
		}
		defer key.Destroy()
		m := material{key: root, salt: eraseKey.Bytes()}
		if err := openBlob(key.Bytes(), m, s.cmkIdentity(c, version), wrapped); err != nil {
			return fmt.Errorf("CMK %s version %d: %w", c.ID, version, err)
		}
		return fn(key.Bytes())
	})
}
