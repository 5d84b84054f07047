package keystore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"

	"github.com/google/uuid"

	"nbdcrypt/pkg/secret"
)

// The root key file and the store's header are short texts of the same grammar: a line that names kind and
// version, two lines of a word and a value, and the sum over those three.
const (
	rootKind     = "nbdcrypt-root-key"
	storeKind    = "nbdcrypt-store"
	textVersion  = "1"
	sumDigits    = 16
	rootIDSize   = 16
	maxTextFile  = 4096
	uuidDigits   = 36
	textTemplate = "%s %s\nstore %s\n%s "
)

// rootText is why the text of a root key file is in memory.
var rootText = secret.Purpose{Kind: "root", For: "reading or writing the root key file"}

var errText = errors.New("it is not as it was written")

// parseText reads such a text. The value of the second line is lent from b, never copied: it may be a key.
func parseText(b []byte, kind, word string, digits int) (store uuid.UUID, value []byte, err error) {
	rest, ok := bytes.CutPrefix(b, []byte(kind+" "))
	if !ok {
		return store, nil, fmt.Errorf("%w: it does not begin with %q", errText, kind)
	}
	version, rest, ok := bytes.Cut(rest, []byte("\n"))
	if !ok || !isVersion(version) {
		return store, nil, fmt.Errorf("%w: its first line is damaged", errText)
	}
	if string(version) != textVersion {
		return store, nil, fmt.Errorf("it has version %s, this build reads version %s", version, textVersion)
	}
	id, rest, okStore := cutLine(rest, "store ", uuidDigits)
	value, rest, okValue := cutLine(rest, word+" ", digits)
	sum, end, okSum := cutLine(rest, "sum ", sumDigits)
	if !okStore || !okValue || !okSum || len(end) != 0 || !isHex(value) {
		return store, nil, fmt.Errorf("%w: it is cut short, or a line is damaged", errText)
	}
	want, err := textSum(b[:len(b)-len(rest)])
	if err != nil {
		return store, nil, err
	}
	if string(sum) != want {
		return store, nil, fmt.Errorf("%w: its sum does not fit", errText)
	}
	if store, err = uuid.ParseBytes(id); err != nil || store.String() != string(id) {
		return store, nil, fmt.Errorf("%w: %q is no store id", errText, id)
	}
	return store, value, nil
}

func isVersion(b []byte) bool {
	_, err := strconv.ParseUint(string(b[:min(len(b), 20)]), 10, 32)
	return err == nil
}

// cutLine takes a line that holds word and a value of so many bytes.
func cutLine(b []byte, word string, n int) (value, rest []byte, ok bool) {
	b, ok = bytes.CutPrefix(b, []byte(word))
	if !ok || len(b) < n+1 || b[n] != '\n' {
		return nil, nil, false
	}
	return b[:n], b[n+1:], true
}

func isHex(b []byte) bool {
	for _, c := range b {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// textSum hashes in secret memory: the text may hold a key.
func textSum(b []byte) (sum string, err error) {
	err = withHash(func(h *hkdfState) error {
		h.begin()
		h.write(b)
		h.sum(h.okm[:])
		sum = hex.EncodeToString(h.okm[:sumDigits/2])
		return nil
	})
	return sum, err
}

// writeText lays such a text into dst, which has to have room for it, and returns how much it took. value is
// written as hex.
func writeText(dst []byte, kind, word string, store uuid.UUID, value []byte) (int, error) {
	n := copy(dst, fmt.Sprintf(textTemplate, kind, textVersion, store, word))
	n += hex.Encode(dst[n:], value)
	n += copy(dst[n:], "\n")
	sum, err := textSum(dst[:n])
	return n + copy(dst[n:], "sum "+sum+"\n"), err
}

// parseRootKey reads a root key file that lies in secret memory into a key.
func parseRootKey(text []byte) (uuid.UUID, *secret.Key, error) {
	store, digits, err := parseText(text, rootKind, "key", 2*keySize)
	if err != nil {
		return store, nil, err
	}
	key, err := secret.New(keySize, rootPurpose(store))
	if err != nil {
		return store, nil, fmt.Errorf("keystore: %w", err)
	}
	if _, err := hex.Decode(key.Bytes(), digits); err != nil {
		key.Destroy()
		return store, nil, err
	}
	return store, key, nil
}

// header is the store's: which store this is, and which root key opens it.
type header struct {
	store  uuid.UUID
	rootID [rootIDSize]byte
	// token names the key that holds the store, and local is the local key under it; empty where there is a root key file.
	token string
	local []byte
}

func parseHeader(b []byte) (h header, err error) {
	if bytes.HasPrefix(b, []byte(heldFirstLine)) {
		return parseHeldHeader(b)
	}
	store, digits, err := parseText(b, storeKind, "root", 2*rootIDSize)
	if err != nil {
		return h, err
	}
	h.store = store
	_, err = hex.Decode(h.rootID[:], digits)
	return h, err
}

func (h header) encode() ([]byte, error) {
	if h.local != nil {
		return h.encodeHeld()
	}
	b := make([]byte, 256)
	n, err := writeText(b, storeKind, "root", h.store, h.rootID[:])
	return b[:n], err
}

func newHeader(root *secret.Key, store uuid.UUID) (h header, err error) {
	h.store = store
	id := newIdentity("nbdcrypt/v1/root-id", store)
	secret.Do(func() {
		err = withHash(func(s *hkdfState) error { return s.derive(h.rootID[:], material{key: root.Bytes()}, id) })
	})
	return h, err
}
