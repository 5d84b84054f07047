package chain

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"hash"
	"strconv"
	"time"
)

// Link is what a line has to do with the lines round it.
type Link struct {
	Seq     uint64
	Time    time.Time
	Catalog uint64
	// Prev and Hash are in hex, and lie in the line.
	Prev, Hash []byte
}

// How the parts begin that stand between the fields of a link. None of them can stand inside of a string, where a quotation mark has a
// backslash before it.
var (
	seqPart     = []byte(`{"seq":`)
	timePart    = []byte(`,"time":"`)
	catalogPart = []byte(`,"catalog":`)
	prevPart    = []byte(`,"prev":"`)
	hashPart    = []byte(`","hash":"`)
	endPart     = []byte(`"}`)
)

var errRecord = fmt.Errorf("%w: it is no record that ends in its hash", errLine)

// linker checks lines one by one. It reads what it needs straight from the bytes, as they always stand in the same order: the start of
// a daemon reads the whole log, and taking JSON apart would be ten times the work of the hash.
type linker struct {
	hash hash.Hash
	sum  [sha256.Size]byte
	hex  [hashLen]byte
}

func newLinker() *linker { return &linker{hash: sha256.New()} }

// link reads a line and checks that it has the hash that it names.
func (l *linker) link(line []byte) (link Link, err error) {
	link, err = ParseLink(line)
	if err != nil {
		return link, err
	}
	l.hash.Reset()
	l.hash.Write(line[:len(line)-hashLen-len(endPart)])
	l.hash.Write(endPart)
	hex.Encode(l.hex[:], l.hash.Sum(l.sum[:0]))
	if !bytes.Equal(l.hex[:], link.Hash) {
		return link, fmt.Errorf("%w: its hash does not fit", errLine)
	}
	return link, nil
}

// ParseLink takes a line apart from both ends, and checks no hash.
func ParseLink(line []byte) (link Link, err error) {
	rest, ok := bytes.CutSuffix(line, endPart)
	if !ok {
		return link, errRecord
	}
	if rest, link.Hash, ok = cutHash(rest, hashPart); !ok {
		return link, errRecord
	}
	if rest, link.Prev, ok = cutHash(rest, prevPart); !ok {
		return link, errRecord
	}
	at := bytes.LastIndex(rest, catalogPart)
	if at < 0 {
		return link, errRecord
	}
	if link.Catalog, err = strconv.ParseUint(string(rest[at+len(catalogPart):]), 10, 64); err != nil {
		return link, errRecord
	}
	if link.Seq, link.Time, ok = parseStart(rest[:at]); !ok {
		return link, errRecord
	}
	return link, nil
}

// cutHash takes a hash from the end, and what stands before it.
func cutHash(line, before []byte) (rest, hash []byte, ok bool) {
	at := len(line) - hashLen
	if at < 0 {
		return nil, nil, false
	}
	rest, ok = bytes.CutSuffix(line[:at], before)
	return rest, line[at:], ok
}

// parseStart reads the first two fields.
func parseStart(line []byte) (seq uint64, when time.Time, ok bool) {
	rest, ok := bytes.CutPrefix(line, seqPart)
	if !ok {
		return 0, when, false
	}
	number, rest, ok := bytes.Cut(rest, timePart)
	if !ok {
		return 0, when, false
	}
	seq, err := strconv.ParseUint(string(number), 10, 64)
	if err != nil {
		return 0, when, false
	}
	text, _, ok := bytes.Cut(rest, endPart[:1])
	if !ok || when.UnmarshalText(text) != nil {
		return 0, when, false
	}
	return seq, when, true
}
