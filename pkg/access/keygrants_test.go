package access_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

const cmk = "6f1c0000-0000-4000-8000-000000000001"

func keyGrant(c access.Caller, op access.Operation) access.KeyGrant {
	return access.KeyGrant{Key: cmk, Project: access.DefaultProject, UID: c.UID, User: c.User, Operation: op, By: "root", Created: noon}
}

func giveKey(t *testing.T, a *access.Access, request string, g access.KeyGrant) (access.KeyGrant, bool) {
	t.Helper()
	made, both, err := a.GrantKey(t.Context(), request, root, g)
	must(t, err)
	return made, both
}

// about tells which keys a call is about.
func about(ids ...string) access.Keys {
	return func(context.Context) ([]string, error) { return ids, nil }
}

// keyed is the policy of key grants as it should be: which operation of a key allows what is about it.
var keyed = map[access.Operation][]access.Action{
	access.Decrypt:      {access.DiskList, access.DiskShow, access.DiskAttach, access.DiskDetach, access.DiskRewrap, access.SnapshotList, access.SnapshotShow, access.ImageList, access.ImageShow},
	access.Encrypt:      {access.DiskCreate},
	access.Describe:     {access.KeyList, access.KeyShow, access.KeyUses},
	access.AnyOperation: {access.JobShow, access.JobCancel, access.KeyGrantList, access.KeyGrantRetire},
}

// Rule B8: a grant of a key lets a user without any role do what it is for, with that key only; several add up; revoking and retiring ends it.
func TestRuleB8_KeyGrantsAddUp(t *testing.T) {
	a := newAccess(t)
	ctx := t.Context()
	may := func(action access.Action, keys ...string) bool {
		t.Helper()
		err := a.CheckKeys(ctx, nobody, action, access.DefaultProject, about(keys...))
		if code := refusal.CodeOf(err); code != refusal.OK && code != refusal.Denied {
			t.Errorf("%v: %v", action, err)
		}
		return err == nil
	}
	given := map[access.Action]bool{access.StatusShow: true, access.ProjectList: true}
	var grants []access.KeyGrant
	for _, op := range []access.Operation{access.Decrypt, access.Encrypt, access.Describe} {
		g, both := giveKey(t, a, "give "+string(op), keyGrant(nobody, op))
		if both {
			t.Errorf("%s to who has no role is told to be two things", op)
		}
		grants = append(grants, g)
		for _, action := range append(keyed[op], keyed[access.AnyOperation]...) {
			given[action] = true
		}
		for _, action := range access.Actions() {
			if may(action, "another", cmk) != given[action] {
				t.Errorf("after %s: may %v: %v", op, action, !given[action])
			}
			if action != access.StatusShow && action != access.ProjectList && (may(action, "another") || may(action)) {
				t.Errorf("may %v with another key, or none", action)
			}
		}
	}
	if again, _ := giveKey(t, a, "again", keyGrant(nobody, access.Decrypt)); again != grants[0] {
		t.Errorf("a second grant: %+v", again)
	}
	must(t, a.RevokeKey(ctx, "revoke", access.DefaultProject, cmk, grants[0].ID))
	if may(access.DiskAttach, cmk) || !may(access.DiskCreate, cmk) {
		t.Error("revoking one does not end that one alone")
	}
	if refusal.CodeOf(a.RevokeKey(ctx, "twice", access.DefaultProject, cmk, grants[0].ID)) != refusal.NotFound {
		t.Error("a grant is revoked twice")
	}
	err := a.RetireKey(ctx, "by another", user, access.DefaultProject, cmk, grants[1].ID)
	if refusal.CodeOf(err) != refusal.Denied || !strings.Contains(refusal.From(err).Hint, "key revoke") {
		t.Errorf("another retires it: %v", err)
	}
	must(t, a.RetireKey(ctx, "retire", nobody, access.DefaultProject, cmk, grants[1].ID))
	if list, err := a.KeyGrants(ctx, access.DefaultProject, cmk); err != nil || len(list) != 1 || list[0] != grants[2] {
		t.Errorf("what is left: %+v, %v", list, err)
	}
}

// A server has disks under several keys: no grant of one lets anybody do anything with a server, or with what servers are made of.
func TestRuleB8_NoKeyGrantIsForServers(t *testing.T) {
	a := newAccess(t)
	for _, op := range []access.Operation{access.Decrypt, access.Encrypt, access.Describe} {
		giveKey(t, a, "give "+string(op), keyGrant(nobody, op))
	}
	for action := access.ServerCreate; action <= access.GroupDelete; action++ {
		if err := a.CheckKeys(t.Context(), nobody, action, access.DefaultProject, about(cmk)); refusal.CodeOf(err) != refusal.Denied {
			t.Errorf("who has grants alone may %v: %v", action, err)
		}
	}
}

// A grant counts in its own project, and for its own user.
func TestKeyGrantsOfOthers(t *testing.T) {
	a := newShop(t)
	giveKey(t, a, "dave", keyGrant(nobody, access.Decrypt))
	for _, c := range []struct {
		who     access.Caller
		project string
	}{{nobody, "shop"}, {nobody, "none"}, {audits, "default"}, {frank, "default"}} {
		if err := a.CheckKeys(t.Context(), c.who, access.DiskAttach, c.project, about(cmk)); refusal.CodeOf(err) != refusal.Denied {
			t.Errorf("%s attaches in %s: %v", c.who.User, c.project, err)
		}
	}
	if refusal.CodeOf(a.RevokeKey(t.Context(), "elsewhere", "shop", cmk, "x")) != refusal.NotFound {
		t.Error("a grant is revoked from another project")
	}
}

func TestRuleC17_KeyGrantsToAdministrators(t *testing.T) {
	a := newAccess(t)
	ctx := t.Context()
	for _, op := range []access.Operation{access.Decrypt, access.Encrypt} {
		if _, _, err := a.GrantKey(ctx, "self "+string(op), admin, keyGrant(admin, op)); refusal.CodeOf(err) != refusal.Denied {
			t.Errorf("an administrator gives himself %s: %v", op, err)
		}
		if _, both := giveKey(t, a, "other "+string(op), keyGrant(admin, op)); !both {
			t.Errorf("%s to an administrator says nothing", op)
		}
	}
	_, both, err := a.GrantKey(ctx, "see", admin, keyGrant(admin, access.Describe))
	must(t, err)
	if both {
		t.Error("describe is told to be the use of data")
	}
	for _, op := range []access.Operation{"", "any", "king"} {
		if _, _, err := a.GrantKey(ctx, "bad", root, keyGrant(user, op)); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("the operation %q: %v", op, err)
		}
	}
}

func TestAtMost100GrantsAKey(t *testing.T) {
	a := newAccess(t)
	for i := range access.MaxKeyGrants {
		giveKey(t, a, fmt.Sprint("n", i), keyGrant(access.Caller{UID: 5000 + uint32(i), User: "many"}, access.Decrypt))
	}
	g := keyGrant(nobody, access.Decrypt)
	if _, _, err := a.GrantKey(t.Context(), "101", root, g); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("the 101st: %v", err)
	}
	g.Key = "another"
	giveKey(t, a, "another", g)
	giveKey(t, a, "one that is there", keyGrant(access.Caller{UID: 5000, User: "many"}, access.Decrypt))
}

// A grant that can't be read allows nothing, and takes nothing from who has another.
func TestDamagedKeyGrantsAllowNothing(t *testing.T) {
	s := catalog.Memory()
	a := access.New(s, self)
	giveKey(t, a, "good", keyGrant(nobody, access.Decrypt))
	good := `{"v":1,"id":"0","key":"` + cmk + `","project":"default","uid":1004,"user":"dave","operation":"decrypt","by":"root","created":"2026-01-02T12:00:00Z"}`
	for i, bad := range []string{"", "{", strings.Replace(good, `"v":1`, `"v":2`, 1), strings.Replace(good, `"id":"0"`, `"id":"1"`, 1), strings.Replace(good, cmk, "another", 1),
		strings.Replace(good, `"decrypt"`, `"any"`, 1), strings.Replace(good, `"uid"`, `"until":1,"uid"`, 1), strings.Replace(good, "1004", "4294967295", 1)} {
		must(t, s.Update(t.Context(), fmt.Sprint("bad", i), func(txn catalog.Txn) error { return txn.Put(access.KeyGrantPrefix(cmk)+"0", []byte(bad)) }))
		if err := a.CheckKeys(t.Context(), access.Caller{UID: 4242}, access.DiskAttach, access.DefaultProject, about(cmk)); refusal.CodeOf(err) != refusal.Damaged {
			t.Errorf("%q: %v", bad, err)
		}
		if err := a.CheckKeys(t.Context(), nobody, access.DiskAttach, access.DefaultProject, about(cmk)); err != nil {
			t.Errorf("%q: %v", bad, err)
		}
	}
	must(t, s.Update(t.Context(), "good again", func(txn catalog.Txn) error { return txn.Put(access.KeyGrantPrefix(cmk)+"0", []byte(good)) }))
	must(t, a.CheckKeys(t.Context(), nobody, access.DiskAttach, access.DefaultProject, about(cmk)))
}

// Whatever bytes there are, a record is taken only whole: what it says goes back to a record that says the same.
func FuzzRecords(f *testing.F) {
	f.Add("role/default/0000001002", []byte(`{"v":1,"user":"bob","roles":["user"]}`))
	f.Add("project/shop", []byte(`{"v":1,"name":"shop","encrypt_by_default":true,"default_key":"k","by":"root","created":"2026-01-02T12:00:00Z"}`))
	f.Add("key-grant/k/g", []byte(`{"v":1,"id":"g","key":"k","project":"p","uid":7,"user":"x","operation":"encrypt","by":"root","created":"2026-01-02T12:00:00Z"}`))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		for _, rec := range access.Records(name, b) {
			text, err := json.Marshal(rec)
			must(t, err)
			again := access.Records(name, text)
			if len(again) == 0 || fmt.Sprint(again[0]) != fmt.Sprint(rec) {
				t.Errorf("%s becomes %s", b, text)
			}
		}
	})
}
