package keystore

import (
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// State is a CMK's state.
type State int

// The states of a CMK (rule B2).
const (
	Enabled State = iota + 1
	Disabled
	PendingDeletion
	PendingImport
	// Deleting is a CMK whose erase key is being overwritten: it is gone for everybody, and a start finishes it.
	Deleting
)

var stateWords = map[State]string{
	Enabled: "Enabled", Disabled: "Disabled", PendingDeletion: "Pending deletion", PendingImport: "Pending import",
	Deleting: "Deleting",
}

// String is the word that is printed.
func (s State) String() string {
	if w, ok := stateWords[s]; ok {
		return w
	}
	return fmt.Sprintf("State(%d)", int(s))
}

// MarshalText implements encoding.TextMarshaler; records hold the word.
func (s State) MarshalText() ([]byte, error) {
	if _, ok := stateWords[s]; !ok {
		return nil, fmt.Errorf("keystore: %v is no state", s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *State) UnmarshalText(b []byte) error {
	for state, word := range stateWords {
		if word == string(b) {
			*s = state
			return nil
		}
	}
	return fmt.Errorf("keystore: %q is no state", b)
}

const recordVersion = 1

// cmkRecord is a CMK at key/PROJECT/ID.
type cmkRecord struct {
	Version int       `json:"v"`
	ID      uuid.UUID `json:"id"`
	Alias   string    `json:"alias"`
	Project string    `json:"project"`
	Region  string    `json:"region"`
	State   State     `json:"state"`
	Default bool      `json:"default"`
	Origin  string    `json:"origin"`
	Created time.Time `json:"created"`
	// Slot is the pair in the erase file; 0 and no versions where there is no key material.
	Slot     int64        `json:"slot"`
	Versions []cmkVersion `json:"versions"`

	Description string            `json:"description,omitempty"`
	Tags        map[string]string `json:"tags,omitempty"`
	// Deletion is when the CMK is destroyed; set exactly while it is Pending deletion.
	Deletion *time.Time `json:"deletion,omitempty"`
	// RotationDays is how often it is rotated, 0 for never; RotationFrom is what the days are counted from.
	RotationDays int          `json:"rotation_days,omitempty"`
	RotationFrom *time.Time   `json:"rotation_from,omitempty"`
	Import       *importState `json:"import,omitempty"`
}

// importState is what is kept of imported key material, and of the parameters for importing some.
type importState struct {
	// Parameters is the id of the newest import parameters, Until how long they are good.
	Parameters uuid.UUID `json:"parameters"`
	Until      time.Time `json:"until"`
	// Fingerprint tells the material that was imported first: no other is taken after it.
	Fingerprint []byte `json:"fingerprint,omitempty"`
	// Expires is when the material is deleted; nil for never.
	Expires *time.Time `json:"expires,omitempty"`
	// Erasing tells that the erase key is being overwritten: the material is as good as gone, and a start finishes it.
	Erasing bool `json:"erasing,omitempty"`
}

// cmkVersion is one version of a CMK's key material, the newest last.
type cmkVersion struct {
	Number  uint32    `json:"number"`
	Created time.Time `json:"created"`
	Wrapped []byte    `json:"wrapped"`
}

func (c cmkRecord) key() string { return cmkKey(c.Project, c.ID.String()) }

func (c cmkRecord) newest() cmkVersion { return c.Versions[len(c.Versions)-1] }

func (c cmkRecord) version(number uint32) (cmkVersion, error) {
	for _, v := range c.Versions {
		if v.Number == number {
			return v, nil
		}
	}
	return cmkVersion{}, fmt.Errorf("%w: CMK %s has no version %d", errBlob, c.ID, number)
}

// check refuses a record that a build of this version could not have written.
func (c cmkRecord) check() error {
	switch {
	case c.Version != recordVersion:
		return fmt.Errorf("it has version %d, this build reads version %d", c.Version, recordVersion)
	case c.State == 0 || c.ID == uuid.Nil, len(c.Versions) == 0 && c.Origin == OriginGenerated:
		return errors.New("it is incomplete")
	case (len(c.Versions) == 0) != (c.Slot == 0), len(c.Versions) == 0 && (c.State == Enabled || c.State == Disabled):
		return fmt.Errorf("it is %s with %d versions of key material in slot %d", c.State, len(c.Versions), c.Slot)
	case (c.Deletion != nil) != (c.State == PendingDeletion):
		return fmt.Errorf("it is %s, and its date of deletion does not fit that", c.State)
	}
	return nil
}

func cmkPrefix(project string) string     { return "key/" + project + "/" }
func cmkKey(project, id string) string    { return cmkPrefix(project) + id }
func grantPrefix(region string) string    { return "grant/" + region + "/" }
func grantKey(region, p string) string    { return grantPrefix(region) + p }
func aliasPrefix(region, p string) string { return "alias/" + region + "/" + p + "/" }

func readCMK(r catalog.Reader, key string) (c cmkRecord, err error) {
	b, err := r.Get(key)
	if err != nil {
		return c, err
	}
	return parseCMK(key, b)
}

func parseCMK(key string, b []byte) (c cmkRecord, err error) {
	if err := decodeJSON(key, b, &c); err != nil {
		return c, err
	}
	if err := c.check(); err != nil {
		return c, fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, key, err)
	}
	return c, nil
}

// grantRecord is the key store's rights of a project at grant/REGION/PROJECT.
type grantRecord struct {
	Version int       `json:"v"`
	Project string    `json:"project"`
	Region  string    `json:"region"`
	By      string    `json:"by"`
	Created time.Time `json:"created"`
}
