package keystore_test

import (
	"fmt"
	"reflect"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
)

func TestRuleB5_TwentyTags(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	tags := map[string]string{}
	for i := range keystore.MaxTags {
		tags[fmt.Sprint("t", i)] = strings.Repeat("ä", 127)
	}
	_, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "mine", Tags: tags})
	must(t, err)
	_, err = l.Update(l.ctx(), l.request(), "default", "mine", keystore.Update{Tags: map[string]string{"one-more": ""}})
	wantCode(t, err, refusal.Usage)
	info, err := l.Update(l.ctx(), l.request(), "default", "mine", keystore.Update{Tags: map[string]string{"one-more": ""}, Untag: []string{"t0"}})
	if err != nil || len(info.Tags) != keystore.MaxTags || info.Tags["t1"] == "" {
		t.Errorf("%+v, %v", info, err)
	}
	_, err = l.Update(l.ctx(), l.request(), "default", "mine", keystore.Update{Untag: []string{"t0"}})
	wantCode(t, err, refusal.NotFound)
	for name, value := range map[string]string{"": "", strings.Repeat("x", 129): "", "a=b": "", "a b": "", "long": strings.Repeat("x", 256), "line": "a\nb", "bytes": "\xff"} {
		_, err := l.Update(l.ctx(), l.request(), "default", "mine", keystore.Update{Tags: map[string]string{name: value}, Untag: []string{"t1"}})
		wantCode(t, err, refusal.Usage)
	}
	l.reopen()
	if again, err := l.Key(l.ctx(), "default", "mine"); err != nil || !reflect.DeepEqual(again, info) {
		t.Errorf("after a restart %+v, %v", again, err)
	}
}

// Rule B4 for a new name: unique, not reserved; what is under the key stays, and the old name is free.
func TestRuleB4_Rename(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	key := l.create("default", "old")
	l.create("default", "taken")
	l.dek("default", "old", disk1, "l1")
	for alias, code := range map[string]refusal.Code{"taken": refusal.Busy, "evs/default": refusal.Usage, "x/default": refusal.Usage, "": refusal.Usage} {
		_, err := l.Update(l.ctx(), l.request(), "default", "old", keystore.Update{Alias: &alias})
		wantCode(t, err, code)
	}
	for range 2 { // the second is the same call again
		info, err := l.Update(l.ctx(), "rename", "default", "old", keystore.Update{Alias: ptr("new"), Description: ptr("what it is")})
		if err != nil || info.ID != key.ID || info.Alias != "new" || info.Description != "what it is" {
			t.Errorf("renamed: %+v, %v", info, err)
		}
	}
	l.reopen()
	if _, err := l.unwrap("default", disk1, "l1"); err != nil {
		t.Error(err)
	}
	_, err := l.Key(l.ctx(), "default", "old")
	wantCode(t, err, refusal.NotFound)
	l.create("default", "old")
	same, err := l.Update(l.ctx(), l.request(), "default", "new", keystore.Update{Alias: ptr("new"), Description: ptr("")})
	if err != nil || same.Description != "" {
		t.Errorf("the same name: %+v, %v", same, err)
	}
	_, err = l.Update(l.ctx(), l.request(), "default", "new", keystore.Update{Description: ptr(strings.Repeat("x", 256))})
	wantCode(t, err, refusal.Usage)
}

// With every limit used up a key's record still fits the catalog.
func TestFullestRecordFits(t *testing.T) {
	if n := keystore.FullRecord(); n > keystore.MaxSealed || n < keystore.MaxSealed/2 {
		t.Errorf("it has %d bytes, %d are allowed", n, keystore.MaxSealed)
	}
}
