package keystore

import (
	"bytes"
	"testing"
	"time"

	"github.com/google/uuid"
)

func someToken() importToken {
	return importToken{uuid.New(), uuid.New(), uuid.New(), time.Unix(1e9, 0).UTC(), make([]byte, 600)}
}

func TestImportTokenIsReadAsItWasWritten(t *testing.T) {
	want := someToken()
	b, err := want.encode()
	if err != nil || len(b) > MaxImportToken {
		t.Fatalf("%d bytes, %v", len(b), err)
	}
	got, err := parseImportToken(b)
	if err != nil || got.store != want.store || got.cmk != want.cmk || got.id != want.id || !got.until.Equal(want.until) || !bytes.Equal(got.sealed, want.sealed) {
		t.Errorf("%+v, %v", got, err)
	}
	for i := range b {
		bad := bytes.Clone(b)
		bad[i] ^= 1
		if _, err := parseImportToken(bad); err == nil {
			t.Fatalf("byte %d flipped, it is taken", i)
		}
		if _, err := parseImportToken(b[:i]); err == nil {
			t.Fatalf("cut to %d bytes, it is taken", i)
		}
	}
}

// Each line of a token is bound to the private key, whatever its sum says, and so is the place of its CMK.
func TestRuleC3_ImportTokenIsBound(t *testing.T) {
	base := someToken()
	c := cmkRecord{Region: "here", Project: "default"}
	seen := map[string]bool{string(base.identity(c)): true}
	for what, change := range map[string]func(*importToken, *cmkRecord){
		"store":      func(t *importToken, _ *cmkRecord) { t.store = uuid.New() },
		"key":        func(t *importToken, _ *cmkRecord) { t.cmk = uuid.New() },
		"parameters": func(t *importToken, _ *cmkRecord) { t.id = uuid.New() },
		"until":      func(t *importToken, _ *cmkRecord) { t.until = t.until.Add(time.Second) },
		"region":     func(_ *importToken, c *cmkRecord) { c.Region = "there" },
		"project":    func(_ *importToken, c *cmkRecord) { c.Project = "b" },
	} {
		token, rec := base, c
		change(&token, &rec)
		if id := string(token.identity(rec)); seen[id] {
			t.Errorf("another %s leaves the identity as it was", what)
		} else {
			seen[id] = true
		}
	}
}

func FuzzImportToken(f *testing.F) {
	seed, err := someToken().encode()
	if err != nil {
		f.Fatal("no seed", err)
	}
	if _, err := parseImportToken(seed); err != nil {
		f.Fatal(err)
	}
	f.Add(seed)
	f.Add([]byte(tokenKind + " 1\n"))
	f.Add([]byte(tokenKind + " 2\nanything\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		token, err := parseImportToken(b)
		if err != nil {
			return
		}
		if again, err := token.encode(); err != nil || !bytes.Equal(again, b) {
			t.Errorf("%q is taken, and written as %q", b, again)
		}
	})
}
