package keystore

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/child"
)

// someSlot is a slot with its wrapping key, which no passphrase gives.
func someSlot(t testing.TB) (s slot, wrapping material) {
	t.Helper()
	wrapping = material{key: bytes.Repeat([]byte{7}, child.KeySize)}
	s = slot{store: uuid.New(), id: uuid.New(), kind: kindPassphrase, name: "laptop", created: time.Unix(1e9, 0).UTC(),
		way: passphraseWay{productCost, bytes.Repeat([]byte{0xa5}, saltSize)}}
	var err error
	if s.wrapped, err = sealBlob(wrapping, s.identity(), bytes.Repeat([]byte{9}, keySize)); err != nil {
		t.Fatal(err)
	}
	return s, wrapping
}

func encoded(t testing.TB, s slot) []byte {
	t.Helper()
	b, err := s.encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// resum makes the sum fit again, as someone would who changes a file on purpose.
func resum(t testing.TB, b []byte) []byte {
	t.Helper()
	body := b[:len(b)-len("sum ")-sumDigits-1]
	sum, err := textSum(body)
	if err != nil {
		t.Fatal(err)
	}
	return append(bytes.Clone(body), "sum "+sum+"\n"...)
}

func TestSlotFileReadsBack(t *testing.T) {
	defer Product()()
	s, wrapping := someSlot(t)
	b := encoded(t, s)
	got, err := parseSlotFile(b)
	if err != nil || !bytes.Equal(encoded(t, got), b) {
		t.Fatalf("%+v, %v", got, err)
	}
	key := make([]byte, keySize)
	if err := openBlob(key, wrapping, got.identity(), got.wrapped); err != nil || key[0] != 9 {
		t.Errorf("it opens to %x, %v", key, err)
	}
}

// Whatever bit of a slot's file changes, by accident or on purpose, it opens no more.
func TestRuleA4_ChangedSlotDoesNotOpen(t *testing.T) {
	defer Product()()
	s, wrapping := someSlot(t)
	whole := encoded(t, s)
	for i := range whole {
		for bit := range 8 {
			b := bytes.Clone(whole)
			b[i] ^= 1 << bit
			if _, err := parseSlotFile(b); err == nil {
				t.Errorf("byte %d, bit %d: it is read", i, bit)
			}
			changed, err := parseSlotFile(resum(t, b))
			if err != nil || i >= len(whole)-sumDigits-5 {
				continue // refused, or what was changed is the sum
			}
			if err := openBlob(make([]byte, keySize), wrapping, changed.identity(), changed.wrapped); !errors.Is(err, errBlob) {
				t.Errorf("byte %d, bit %d, with a sum that fits: %v", i, bit, err)
			}
		}
		if _, err := parseSlotFile(whole[:i]); err == nil {
			t.Errorf("cut at %d it is read", i)
		}
	}
}

// A file that somebody weakened is refused, as is one that would take all memory, before anything is computed.
func TestRuleA4_CostsOutsideTheBoundsAreRefused(t *testing.T) {
	defer Product()()
	for _, c := range []struct {
		cost child.Params
		why  string
	}{
		{child.Params{Time: 2, Memory: 256 << 10, Lanes: 4}, "too weak"},
		{child.Params{Time: 3, Memory: 64<<10 - 1, Lanes: 4}, "too weak"},
		{child.Params{Time: 3, Memory: 64 << 10, Lanes: 0}, "too weak"},
		{child.Params{Time: 3, Memory: 64 << 10, Lanes: 1}, ""},
		{child.Params{Time: 16, Memory: 1 << 20, Lanes: 8}, ""},
		{child.Params{Time: 17, Memory: 1 << 20, Lanes: 8}, "too much"},
		{child.Params{Time: 16, Memory: 1<<20 + 1, Lanes: 8}, "too much"},
		{child.Params{Time: 16, Memory: 1 << 20, Lanes: 9}, "too much"},
		{child.Params{Time: 1<<32 - 1, Memory: 1<<32 - 1, Lanes: 1<<32 - 1}, "too much"},
	} {
		s, _ := someSlot(t)
		s.way = passphraseWay{c.cost, make([]byte, saltSize)}
		_, err := parseSlotFile(encoded(t, s))
		if (err == nil) != (c.why == "") || err != nil && !strings.Contains(err.Error(), c.why) {
			t.Errorf("%+v: %v", c.cost, err)
		}
	}
	if productCost.Memory > child.MaxMemory || mostCost.Memory > child.MaxMemory || mostCost.Time > child.MaxTime || mostCost.Lanes > child.MaxLanes {
		t.Error("a child would refuse what a slot may cost")
	}
}

// Values have one spelling, and what another build wrote is told from damage.
func TestSlotFileGrammar(t *testing.T) {
	defer Product()()
	s, _ := someSlot(t)
	whole := string(encoded(t, s))
	id := s.id.String()
	for _, c := range []struct{ old, new, why string }{
		{"nbdcrypt-slot 1\n", "nbdcrypt-slot 2\n", "version 2"},
		{"nbdcrypt-slot 1\n", "nbdcrypt-slot x\n", errText.Error()},
		{"nbdcrypt-slot 1\n", "nbdcrypt-slot 01\n", "version 01"},
		{"kind passphrase\n", "kind magic\n", "kind magic"},
		{"kind passphrase\n", "kind \n", errText.Error()},
		{id, strings.ToUpper(id), errText.Error()},
		{id, "{" + id + "}", errText.Error()},
		{"name laptop\n", "name \n", errText.Error()},
		{"name laptop\n", "name my laptop\n", errText.Error()},
		{"name laptop\n", "name " + strings.Repeat("x", 65) + "\n", errText.Error()},
		{"created 2001-09-09T01:46:40Z", "created 2001-09-09T01:46:40+00:00", errText.Error()},
		{"created 2001-09-09T01:46:40Z", "created 2001-09-09T01:46:40.5Z", errText.Error()},
		{"argon2id 3 ", "argon2id 03 ", errText.Error()},
		{"argon2id 3 ", "argon2id +3 ", errText.Error()},
		{"argon2id 3 ", "argon2id  3 ", errText.Error()},
		{"argon2id 3 ", "argon2i 3 ", errText.Error()},
		{"argon2id 3 ", "argon2id 4294967299 ", errText.Error()},
		{"salt a5", "salt A5", errText.Error()},
		{"salt a5", "salt ", errText.Error()},
		{"salt a5", "salt a5a5", errText.Error()},
		{"\nkey ", "\nmore 1\nkey ", errText.Error()},
		{"\nsum ", "\n\nsum ", errText.Error()},
		{"\nsum ", "\n" + strings.Repeat("x", maxTextFile) + "\nsum ", "bytes"},
	} {
		if !strings.Contains(whole, c.old) {
			t.Fatalf("%q is not there", c.old)
		}
		_, err := parseSlotFile(resum(t, []byte(strings.Replace(whole, c.old, c.new, 1))))
		if err == nil || !strings.Contains(err.Error(), c.why) {
			t.Errorf("%.40q for %q: %v", c.new, c.old, err)
		}
	}
	for _, b := range []string{"", "\n", "sum ", whole + "\n", whole + whole, strings.TrimSuffix(whole, "\n")} {
		if _, err := parseSlotFile([]byte(b)); err == nil {
			t.Errorf("%.40q is read", b)
		}
	}
}

// What all kinds of slots have is known of one of a kind to come.
func TestSlotOfAnUnknownKind(t *testing.T) {
	s, _ := someSlot(t)
	s.kind = "magic"
	b := resum(t, []byte(s.common()+"pcr 7\nkey "+hex.EncodeToString([]byte("x"))+"\nsum 0123456789abcdef\n"))
	got, err := parseSlotFile(b)
	if err == nil || got.kind != "magic" || got.name != s.name || got.id != s.id || !got.created.Equal(s.created) {
		t.Errorf("%+v, %v", got, err)
	}
}

func FuzzSlotFile(f *testing.F) {
	defer Product()()
	s, _ := someSlot(f)
	seed := encoded(f, s)
	if _, err := parseSlotFile(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(s.common() + "sum 0123456789abcdef\n"))
	f.Add([]byte(fmt.Sprintf("%s %s\n", slotKind, textVersion)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, b := range [][]byte{b, resum(t, append(bytes.Clone(b), make([]byte, len("sum ")+sumDigits+1)...))} {
			s, err := parseSlotFile(b)
			if err != nil {
				continue
			}
			if again := encoded(t, s); !bytes.Equal(again, b) || s.way.check() != nil || len(s.wrapped) != wrappedSize {
				t.Errorf("%q is taken as %+v", b, s)
			}
		}
	})
}
