package audit

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

// Record is one line of the log (docs/keystore-format.md). Append fills in Seq, Time, Prev and Hash.
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
	// Catalog is the catalog's revision after the verb.
	Catalog uint64 `json:"catalog"`
	Prev    string `json:"prev"`
	Hash    string `json:"hash"`
}

// maxLine bounds a line; what is longer was not written by Append.
const maxLine = 64 << 10

var errLine = errors.New("audit: the line is not as it was written")

// genesis is what the first record has for the hash of the one before.
func genesis(store uuid.UUID) string {
	return hexSum([]byte("nbdcrypt-audit 1\n" + store.String() + "\n"))
}

func hexSum(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// hashEnd is how a line ends whose hash is not filled in.
const hashEnd = `"hash":""}`

// encode makes the line of a record, without the line feed, and fills in its hash.
func encode(rec *Record) ([]byte, error) {
	rec.Hash = ""
	line, err := json.Marshal(rec)
	if err != nil {
		return nil, fmt.Errorf("audit: encode: %w", err)
	}
	rec.Hash = hexSum(line)
	line = fmt.Appendf(line[:len(line)-2], "%s\"}", rec.Hash)
	if len(line) >= maxLine {
		return nil, fmt.Errorf("audit: a record of %d bytes is too long", len(line))
	}
	return line, nil
}

// decode reads a line and checks that it has the hash that it names.
func decode(line []byte) (rec Record, err error) {
	d := json.NewDecoder(bytes.NewReader(line))
	d.DisallowUnknownFields()
	if err := d.Decode(&rec); err != nil {
		return rec, fmt.Errorf("%w: %w", errLine, err)
	}
	if _, err := d.Token(); err != io.EOF {
		return rec, fmt.Errorf("%w: something follows the record", errLine)
	}
	bare, ok := bytes.CutSuffix(line, []byte(rec.Hash+`"}`))
	if !ok || len(rec.Hash) != sha256.Size*2 {
		return rec, fmt.Errorf("%w: it does not end in its hash", errLine)
	}
	bare = append(bytes.Clone(bare), `"}`...)
	if !bytes.HasSuffix(bare, []byte(hashEnd)) || hexSum(bare) != rec.Hash {
		return rec, fmt.Errorf("%w: its hash does not fit", errLine)
	}
	return rec, nil
}
