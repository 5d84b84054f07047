package keystore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
)

var stateWords = map[State]string{
	Enabled: "Enabled", Disabled: "Disabled", PendingDeletion: "Pending deletion", PendingImport: "Pending import",
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
	Version  int          `json:"v"`
	ID       uuid.UUID    `json:"id"`
	Alias    string       `json:"alias"`
	Project  string       `json:"project"`
	Region   string       `json:"region"`
	State    State        `json:"state"`
	Default  bool         `json:"default"`
	Origin   string       `json:"origin"`
	Created  time.Time    `json:"created"`
	Slot     int64        `json:"slot"`
	Versions []cmkVersion `json:"versions"`
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
	case len(c.Versions) == 0 || c.State == 0 || c.ID == uuid.Nil:
		return errors.New("it is incomplete")
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

func strictJSON(b []byte, v any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		return err
	}
	if _, err := d.Token(); err != io.EOF {
		return errors.New("something follows the record")
	}
	return nil
}
