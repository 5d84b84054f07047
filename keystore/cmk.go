package keystore

import (
	"context"
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

// OriginGenerated says that a CMK's material was made here.
const OriginGenerated = "generated"

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
	Version int
	Created time.Time
}

func (c cmkRecord) info() Info {
	if len(c.Versions) == 0 {
		return Info{}
	}
	return Info{c.ID.String(), c.Alias, c.Project, c.Region, c.State, c.Default, c.Origin, int(c.newest().Number), c.Created}
}

// purpose is why a CMK is in memory.
func (c cmkRecord) purpose() secret.Purpose {
	return secret.Purpose{Kind: "cmk", ID: c.ID.String(), For: "one wrap or unwrap"}
}

// name is how a refusal calls the key.
func (c cmkRecord) name() string { return fmt.Sprintf("%s (%s)", c.Alias, c.ID) }

// CreateKey makes a CMK. Asked again with the same request id it answers with the key that it made then.
func (s *Store) CreateKey(ctx context.Context, request, project, alias string) (Info, error) {
	if err := checkAlias(alias); err != nil {
		return Info{}, err
	}
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
	rec, err := s.makeCMK(ctx, request, cmkRecord{Alias: alias, Project: project}, func(t catalog.Txn) error { return allowed(t) })
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
	aliases, err := r.Scan(aliasPrefix(s.c.Region, project), "", MaxKeys+1)
	if err != nil {
		return err
	}
	users := 0
	for _, p := range aliases {
		if !strings.HasSuffix(p.Key, "/default") {
			users++
		}
	}
	if _, err := r.Get(aliasPrefix(s.c.Region, project) + alias); err == nil {
		return refusal.New(refusal.Busy, "choose another alias", "project %s has a key with the alias %s already", project, alias)
	} else if !errors.Is(err, catalog.ErrNotFound) {
		return err
	}
	if users >= MaxKeys {
		return refusal.New(refusal.Busy, "put the disk under a key that is there already: one key serves many disks",
			"project %s has %d keys, and no more are allowed", project, users)
	}
	return nil
}

// makeCMK makes a CMK of what rec says, and commits it together with what also does. The erase slot is durable
// before the record that names it; where the commit fails for certain it is given back.
func (s *Store) makeCMK(ctx context.Context, request string, rec cmkRecord, also func(catalog.Txn) error) (cmkRecord, error) {
	if err := s.c.Root.needOpen(); err != nil {
		return rec, err
	}
	id, err := uuid.NewRandom()
	if err != nil {
		return rec, fmt.Errorf("keystore: %w", err)
	}
	slot, eraseKey, err := s.erase.allocate(id)
	if errors.Is(err, syscall.ENOSPC) {
		return rec, refusal.New(refusal.Failed, "make room in the file system of the state directory, then try again",
			"no space left for a key: %w", err)
	}
	if err != nil {
		return rec, err
	}
	defer eraseKey.Destroy()
	now := s.c.Clock.Now()
	rec.Version, rec.ID, rec.Region, rec.State, rec.Origin = recordVersion, id, s.c.Region, Enabled, OriginGenerated
	rec.Created, rec.Slot = now, slot
	wrapped, err := s.generateCMK(rec, 1, eraseKey)
	if err == nil {
		rec.Versions = []cmkVersion{{1, now, wrapped}}
		err = s.update(ctx, request, func(t catalog.Txn) error { return s.putCMK(t, rec, also) })
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) {
		err = errors.Join(err, s.erase.destroy(slot, id))
	}
	return rec, err
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
	err = s.c.Root.use(func(root []byte) error {
		wrapped, err = sealBlob(material{key: root, salt: eraseKey.Bytes()}, s.cmkIdentity(c, version), key.Bytes())
		return err
	})
	return wrapped, err
}

// withCMK runs fn with one version of a CMK open, which Lock waits for. It asks nothing about the state, and fn reads no
// catalog.
func (s *Store) withCMK(c cmkRecord, version uint32, fn func(cmk []byte) error) error {
	v, err := c.version(version)
	if err != nil {
		return err
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
		if err := openBlob(key.Bytes(), m, s.cmkIdentity(c, version), v.Wrapped); err != nil {
			return fmt.Errorf("CMK %s version %d: %w", c.ID, version, err)
		}
		return fn(key.Bytes())
	})
}
