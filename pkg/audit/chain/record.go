// Package chain is the audit log as a text: lines that are records, each holding the hash of the one before. It reads
// and checks what it is given, and knows nothing of daemons and keys: who has computed every hash anew passes here, unless a
// head that was kept elsewhere tells.
package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/google/uuid"
)

// Outcomes of a verb.
const (
	OK      = "ok"
	Refused = "refused"
)

// Record is one line of the log (docs/keystore-format.md). Whoever appends it fills in Seq, Time, Prev and Hash.
type Record struct {
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Request  string    `json:"request"`
	UID      uint32    `json:"uid"`
	User     string    `json:"user"`
	PID      int32     `json:"pid"`
	Verb     string    `json:"verb"`
	Project  string    `json:"project"`
	Resource string    `json:"resource"`
	Outcome  string    `json:"outcome"`
	// Code is the exit code, Message the refusal's.
	Code    int    `json:"code"`
	Message string `json:"message"`
	// Key names the key version that was released, where one was.
	Key string `json:"key,omitempty"`
	// KeyID is the CMK that the verb was about, where it was about one.
	KeyID string `json:"key_id,omitempty"`
	// Catalog is the catalog's revision after the verb.
	Catalog uint64 `json:"catalog"`
	Prev    string `json:"prev"`
	Hash    string `json:"hash"`
}

// MaxLine bounds a line; what is longer was not written by Encode.
const MaxLine = 64 << 10

// hashLen is the length of a hash in a record.
const hashLen = 2 * sha256.Size

var errLine = errors.New("it is not as it was written")

// Genesis is what the first record of a store's log has for the hash of the one before.
func Genesis(store uuid.UUID) string {
	return hexSum([]byte("nbdcrypt-audit 1\n" + store.String() + "\n"))
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// Encode makes the line of a record, without the line feed, and fills in its hash.
func Encode(rec *Record) ([]byte, error) {
	rec.Hash = ""
	line, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("audit: encode: %w", err)
	}
	rec.Hash = hexSum(line)
	line = fmt.Appendf(line[:len(line)-2], "%s\"}", rec.Hash)
	if len(line) >= MaxLine {
		return nil, fmt.Errorf("audit: a record of %d bytes is too long", len(line))
	}
	return line, nil
}

// Parse reads the record of a line whose hash was checked. Every field of it is one that is known.
func Parse(line []byte) (rec Record, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&rec); err != nil {
		return rec, fmt.Errorf("%w: %w", errLine, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return rec, fmt.Errorf("%w: something follows the record", errLine)
	}
	return rec, nil
}
