package keystore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

const (
	slotKind    = "nbdcrypt-slot"
	wrappedSize = keySize + blobOverhead
)

// slot is what a slot's file says.
type slot struct {
	store, id uuid.UUID
	kind      string
	name      string
	created   time.Time
	way       way
	wrapped   []byte
}

// common are the lines of every kind of slot.
func (s slot) common() string {
	return fmt.Sprintf("%s %s\nstore %s\nslot %s\nkind %s\nname %s\ncreated %s\n",
		slotKind, textVersion, s.store, s.id, s.kind, s.name, s.created.Format(time.RFC3339))
}

// bound are the lines that the wrapped key is bound to.
func (s slot) bound() string { return s.common() + s.way.lines() }

func (s slot) identity() identity { return newIdentity("nbdcrypt/v1/slot", s.store).text(s.bound()) }

func (s slot) encode() ([]byte, error) {
	text := fmt.Sprintf("%skey %x\n", s.bound(), s.wrapped)
	sum, err := textSum([]byte(text))
	return []byte(text + "sum " + sum + "\n"), err
}

// parseSlotFile reads a slot's file. Where it is of a kind that this build does not know, what all kinds have is returned
// beside the error.
func parseSlotFile(b []byte) (s slot, err error) {
	body, err := checkSlotFile(b)
	if err != nil {
		return s, err
	}
	l := lines{rest: body}
	s.store, s.id = l.id("store"), l.id("slot")
	s.kind, s.name = l.next("kind"), l.next("name")
	s.created, _ = time.Parse(time.RFC3339, l.next("created"))
	if l.bad || !nameRule.MatchString(s.kind) || !nameRule.MatchString(s.name) || !strings.HasPrefix(string(b), s.common()) {
		return slot{}, errText
	}
	parse := slotKinds[s.kind]
	if parse == nil {
		return s, fmt.Errorf("it is of kind %s, which this build does not know", s.kind)
	}
	s.way = parse(&l)
	s.wrapped = l.hex("key", wrappedSize)
	again, err := s.encode()
	if err == nil && (l.bad || !bytes.Equal(again, b)) {
		err = errText
	}
	if err == nil {
		err = s.way.check()
	}
	if err != nil {
		return slot{}, err
	}
	return s, nil
}

// checkSlotFile looks at what is the same for all kinds and versions to come, and returns the lines between.
func checkSlotFile(b []byte) ([]byte, error) {
	l := lines{rest: b}
	version := l.next(slotKind)
	if l.bad || !isVersion([]byte(version)) {
		return nil, fmt.Errorf("%w: it does not begin as a slot", errText)
	}
	if version != textVersion {
		return nil, fmt.Errorf("it has version %s, this build reads version %s", version, textVersion)
	}
	const tail = len("sum ") + sumDigits + 1
	if len(b) > maxTextFile || len(l.rest) < tail {
		return nil, fmt.Errorf("%w: it has %d bytes", errText, len(b))
	}
	end := len(b) - tail
	sum, err := textSum(b[:end])
	if err != nil {
		return nil, err
	}
	if string(b[end:]) != "sum "+sum+"\n" {
		return nil, fmt.Errorf("%w: its sum does not fit", errText)
	}
	return l.rest[:len(l.rest)-tail], nil
}

// lines takes a text apart. Once a line does not fit, bad is set and all that follows is empty.
type lines struct {
	rest []byte
	bad  bool
}

func (l *lines) next(word string) string {
	line, rest, ok := bytes.Cut(l.rest, []byte("\n"))
	value, fits := bytes.CutPrefix(line, []byte(word+" "))
	if !ok || !fits || l.bad {
		l.bad = true
		return ""
	}
	l.rest = rest
	return string(value)
}

func (l *lines) check(err error) { l.bad = l.bad || err != nil }

func (l *lines) id(word string) uuid.UUID {
	id, err := uuid.Parse(l.next(word))
	l.check(err)
	return id
}

func (l *lines) hex(word string, n int) []byte {
	b, err := hex.DecodeString(l.next(word))
	if len(b) != n {
		err = errors.Join(err, errText)
	}
	l.check(err)
	return b
}
