package keystore

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/secret"
)

const (
	tokenKind = "nbdcrypt-import-token"
	// MaxImportToken is the longest text of an import token.
	MaxImportToken = maxTextFile
	// tokenTime is how long key material may take to come (rule B7).
	tokenTime = 24 * time.Hour
)

// importToken holds the private half of a wrapping key, sealed, on its way out and back: the key store keeps only its id.
type importToken struct {
	store, cmk, id uuid.UUID
	until          time.Time
	sealed         []byte
}

// bound are the lines that the private key is bound to.
func (t importToken) bound() string {
	return fmt.Sprintf("%s %s\nstore %s\nkey %s\nparameters %s\nuntil %s\n", tokenKind, textVersion, t.store, t.cmk, t.id, t.until.UTC().Format(time.RFC3339))
}

// identity is what the private key is sealed for: the text of the token, and where its CMK is.
func (t importToken) identity(c cmkRecord) identity {
	return newIdentity("nbdcrypt/v1/import", t.store).text(c.Region).text(c.Project).text(t.bound())
}

// material has the token's id as salt, so that what stays of a root key that was locked does not open it.
func (t importToken) material(root []byte) material { return material{key: root, salt: t.id[:]} }

func (t importToken) encode() ([]byte, error) {
	text := t.bound() + "private " + base64.StdEncoding.EncodeToString(t.sealed) + "\n"
	sum, err := textSum([]byte(text))
	return []byte(text + "sum " + sum + "\n"), err
}

// parseImportToken reads a token. Each has one spelling: what this build would not write is damaged.
func parseImportToken(b []byte) (t importToken, err error) {
	if len(b) > MaxImportToken {
		return t, fmt.Errorf("%w: it has %d bytes", errText, len(b))
	}
	l := lines{rest: b}
	version := l.next(tokenKind)
	if l.bad || !isVersion([]byte(version)) {
		return t, fmt.Errorf("%w: it does not begin as an import token", errText)
	}
	if version != textVersion {
		return t, fmt.Errorf("it has version %s, this build reads version %s", version, textVersion)
	}
	t.store, t.cmk, t.id = l.id("store"), l.id("key"), l.id("parameters")
	t.until, err = time.Parse(time.RFC3339, l.next("until"))
	l.check(err)
	t.sealed, err = base64.StdEncoding.DecodeString(l.next("private"))
	l.check(err)
	again, err := t.encode()
	if err == nil && (l.bad || !bytes.Equal(again, b)) {
		err = fmt.Errorf("%w: it is cut short, or a line is damaged", errText)
	}
	if err != nil {
		return importToken{}, err
	}
	return t, nil
}

// sealToken seals the private half of a wrapping key into a token.
func (s *Store) sealToken(t importToken, c cmkRecord, private *secret.Key) ([]byte, error) {
	err := s.c.Root.use(func(root []byte) (err error) {
		t.sealed, err = sealBlob(t.material(root), t.identity(c), private.Bytes())
		return err
	})
	if err == nil {
		t.sealed, err = s.c.Root.wrapOuter(t.identity(c), t.sealed)
	}
	if err != nil {
		return nil, err
	}
	return t.encode()
}

// openToken opens the private half again. It is the caller's to destroy.
func (s *Store) openToken(t importToken, c cmkRecord) (*secret.Key, error) {
	private, err := secret.Work(child.RSAPrivateSize, secret.Purpose{Kind: "derived", ID: c.ID.String(), For: "importing key material"})
	if err != nil {
		return nil, fmt.Errorf("keystore: %w", err)
	}
	sealed, err := s.c.Root.unwrapOuter(t.identity(c), t.sealed)
	if err == nil {
		err = s.c.Root.use(func(root []byte) error { return openBlob(private.Bytes(), t.material(root), t.identity(c), sealed) })
	}
	if err != nil {
		private.Destroy()
		if errors.Is(err, errBlob) {
			err = badToken("the import token was altered: %w", err)
		}
		return nil, err
	}
	return private, nil
}
