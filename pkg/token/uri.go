// Package token uses keys that a PKCS#11 token holds and never gives out: a smart card, an HSM, SoftHSM. A key is named by a URI (RFC
// 7512). The token's module is a C library, so it is loaded into a process of its own, the helper nbdcrypt-pkcs11, which lives for one
// operation: the daemon stays a static program, and a module that crashes, hangs or leaks does so elsewhere. What is secret goes
// through pipes, straight from and into memory of pkg/secret.
//
// It does not promise that a module keeps its own memory clean, nor that a token keeps its promises: what a token says of a key (that it
// can't be extracted) is taken for true.
package token

import (
	"encoding/hex"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"unicode/utf8"
)

// Scheme begins every URI of a key on a token.
const Scheme = "pkcs11:"

const (
	maxURI  = 1024
	maxText = 255
	maxID   = 64
)

// A URI names a key on a token, the module that reaches the token, and where its PIN is.
type URI struct {
	// What the token's description has to be, where it is not empty.
	Token, Manufacturer, Model, Serial string
	// Object is the key's label, ID its CKA_ID: at least one of them is there.
	Object string
	ID     []byte
	// Module is the absolute path of the token's PKCS#11 library.
	Module string
	// PINFile is the absolute path of a file that holds the PIN; empty for a token that takes none.
	PINFile string
}

// IsURI tells a key on a token from a file's name.
func IsURI(s string) bool { return strings.HasPrefix(s, Scheme) }

// texts are the attributes that are plain text, in the order in which they are written.
func (u *URI) texts() []attribute {
	return []attribute{{"model", &u.Model}, {"manufacturer", &u.Manufacturer}, {"serial", &u.Serial}, {"token", &u.Token}, {"object", &u.Object}}
}

type attribute struct {
	name  string
	value *string
}

// Parse reads a URI. It is stricter than RFC 7512: an attribute that this package does not act on would name another key than was meant, so it is
// refused, and so is what stands there twice or is empty.
func Parse(s string) (u URI, err error) {
	rest, ok := strings.CutPrefix(s, Scheme)
	switch {
	case !ok:
		return u, fmt.Errorf("it does not begin with %q", Scheme)
	case len(s) > maxURI:
		return u, fmt.Errorf("it has %d bytes, and %d are the limit", len(s), maxURI)
	}
	path, query, asks := strings.Cut(rest, "?")
	if err := each(path, ";", u.path); err != nil {
		return URI{}, err
	}
	if asks {
		if err := each(query, "&", u.query); err != nil {
			return URI{}, err
		}
	}
	if err := u.check(); err != nil {
		return URI{}, err
	}
	return u, nil
}

func (u *URI) check() error {
	switch {
	case len(u.String()) > maxURI:
		return fmt.Errorf("it has more than %d bytes once all is encoded that has to be", maxURI)
	case u.Token == "" && u.Serial == "":
		return errors.New("it names no token: token= or serial= is missing")
	case u.Object == "" && len(u.ID) == 0:
		return errors.New("it names no key: object= or id= is missing")
	case u.Module == "":
		return errors.New("it names no library: ?module-path= is missing")
	}
	return nil
}

// each hands every attribute on, once and decoded.
func each(list, separator string, take func(name, value string) error) error {
	seen := map[string]bool{}
	for _, part := range strings.Split(list, separator) {
		name, value, ok := strings.Cut(part, "=")
		if !ok || value == "" {
			return fmt.Errorf("%q is not a name, '=' and a value", part)
		}
		if seen[name] {
			return fmt.Errorf("%s= is there twice", name)
		}
		seen[name] = true
		plain, err := decode(value)
		if err == nil {
			err = take(name, plain)
		}
		if err != nil {
			return fmt.Errorf("%s=: %w", name, err)
		}
	}
	return nil
}

func (u *URI) path(name, value string) error {
	for _, a := range u.texts() {
		if a.name == name {
			*a.value = value
			return checkText(value)
		}
	}
	if name != "id" {
		return errors.New("no such attribute is known here; known are token, serial, model, manufacturer, object and id")
	}
	if u.ID = []byte(value); len(value) > maxID {
		return fmt.Errorf("it has %d bytes, and %d are the limit", len(value), maxID)
	}
	return nil
}

func (u *URI) query(name, value string) error {
	switch name {
	case "module-path":
		u.Module = value
		return checkPath(value)
	case "pin-source":
		u.PINFile = strings.TrimPrefix(strings.TrimPrefix(value, "file:"), "//")
		return checkPath(u.PINFile)
	case "pin-value":
		return errors.New("a PIN does not belong on a command line; name a file that holds it with pin-source=file:/PATH")
	}
	return errors.New("no such attribute is known here; known are module-path and pin-source")
}

func checkText(s string) error {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) || len(s) > maxText {
		return fmt.Errorf("%.300q is not text of at most %d bytes", s, maxText)
	}
	return nil
}

func checkPath(s string) error {
	if err := checkText(s); err != nil {
		return err
	}
	if !filepath.IsAbs(s) || filepath.Clean(s) != s {
		return fmt.Errorf("%q is not an absolute path, or not its shortest form", s)
	}
	return nil
}

// plain are the characters besides letters and digits that stand for themselves in both parts of a URI (RFC 7512, 2.3: what
// pk11-pchar and pk11-qchar have in common).
const plain = "-._~:[]@!$'()*+,/"

func isPlain(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'A' && c <= 'Z' || c >= 'a' && c <= 'z' || strings.IndexByte(plain, c) >= 0
}

func decode(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '%' {
			if !isPlain(s[i]) {
				return "", fmt.Errorf("%q has to be written as %%%02X", s[i], s[i])
			}
			b = append(b, s[i])
			continue
		}
		if i+3 > len(s) {
			return "", errors.New("it ends after a '%'")
		}
		c, err := hex.DecodeString(s[i+1 : i+3])
		if err != nil {
			return "", fmt.Errorf("%q is not '%%' and two hex digits", s[i:i+3])
		}
		b = append(b, c...)
		i += 2
	}
	return string(b), nil
}

// String is the one way in which this package writes the URI.
func (u URI) String() string {
	s := u.Name() + "?module-path=" + encode(u.Module)
	if u.PINFile != "" {
		s += "&pin-source=file:" + encode(u.PINFile)
	}
	return s
}

// Name is the part of the URI that names the key, wherever its module lies.
func (u URI) Name() string {
	var parts []string
	for _, a := range u.texts() {
		if *a.value != "" {
			parts = append(parts, a.name+"="+encode(*a.value))
		}
	}
	if len(u.ID) > 0 {
		var id strings.Builder
		for _, c := range u.ID {
			fmt.Fprintf(&id, "%%%02X", c)
		}
		parts = append(parts, "id="+id.String())
	}
	return Scheme + strings.Join(parts, ";")
}

func encode(s string) string {
	var b strings.Builder
	for i := range len(s) {
		if isPlain(s[i]) {
			b.WriteByte(s[i])
		} else {
			fmt.Fprintf(&b, "%%%02X", s[i])
		}
	}
	return b.String()
}
