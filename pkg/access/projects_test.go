package access_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// newShop is an Access with a project of its own, which alice made, and where frank and grace have roles.
func newShop(t *testing.T) *access.Access {
	t.Helper()
	a := newAccess(t)
	_, err := a.CreateProject(t.Context(), "shop", admin, "shop", noon)
	must(t, err)
	give(t, a, "frank", inShop(frank, access.User))
	give(t, a, "grace", inShop(grace, access.Auditor))
	return a
}

var (
	frank = access.Caller{UID: 1005, User: "frank"}
	grace = access.Caller{UID: 1006, User: "grace"}
)

func inShop(c access.Caller, role access.Role) access.Holding {
	return access.Holding{UID: c.UID, User: c.User, Project: "shop", Role: role}
}

func TestRuleA41_RolesOfOneProjectAreNoneInAnother(t *testing.T) {
	a := newShop(t)
	for _, c := range []struct {
		who     access.Caller
		project string
		want    refusal.Code
	}{
		{frank, "shop", refusal.OK}, {frank, "default", refusal.Denied}, {user, "shop", refusal.Denied}, {user, "default", refusal.OK},
		{admin, "shop", refusal.Denied}, {root, "shop", refusal.OK}, {self, "shop", refusal.OK}, {nobody, "shop", refusal.Denied}, {grace, "shop", refusal.Denied},
	} {
		if err := a.Check(t.Context(), c.who, access.DiskAttach, c.project); refusal.CodeOf(err) != c.want {
			t.Errorf("%s attaches in %s: %v", c.who.User, c.project, err)
		}
	}
}

// Who has nothing to do with a project does not learn that it is there, by no word of the answer, whatever is asked; who may make projects
// learns that it is not.
func TestProjectsAreNotToldToStrangers(t *testing.T) {
	a := newShop(t)
	heidi := access.Caller{UID: 1007, User: "heidi"}
	_, err := a.CreateProject(t.Context(), "other", root, "other", noon)
	must(t, err)
	give(t, a, "elsewhere", access.Holding{UID: heidi.UID, User: heidi.User, Project: "other", Role: access.SecurityAdmin})
	for _, action := range access.Actions() {
		for _, c := range []access.Caller{user, heidi, nobody} {
			here, nowhere := a.Check(t.Context(), c, action, "shop"), a.Check(t.Context(), c, action, "none")
			if fmt.Sprint(here) != strings.ReplaceAll(fmt.Sprint(nowhere), `"none"`, `"shop"`) || here != nil && refusal.From(here).Hint != refusal.From(nowhere).Hint {
				t.Errorf("%s may not %v: %v, or %v", c.User, action, here, nowhere)
			}
		}
	}
	for c, want := range map[access.Caller]refusal.Code{root: refusal.NotFound, self: refusal.NotFound, admin: refusal.NotFound, audits: refusal.Denied, frank: refusal.Denied} {
		for _, name := range []string{"none", "", "../shop", "shop/", strings.Repeat("x", 600)} {
			if err := a.Check(t.Context(), c, access.DiskList, name); refusal.CodeOf(err) != want {
				t.Errorf("%s in project %.20q: %v", c.User, name, err)
			}
		}
	}
}

// A refusal names the right that is missing and who can give it: of the project's own to who is in it.
func TestRuleA38_RefusalsNameWhoCanGive(t *testing.T) {
	a := newShop(t)
	for _, c := range []struct {
		who           access.Caller
		action        access.Action
		project, want string
	}{
		{frank, access.KeyDisable, "shop", "it takes the role security-admin, which root or daemon or alice can give"},
		{grace, access.DiskAttach, "shop", "it takes the role user or the grant decrypt of its key, which root or daemon or alice can give"},
		{nobody, access.DiskAttach, "shop", "which root or daemon can give"},
		{frank, access.StatusShow, "default", ""},
		{nobody, access.StatusShow, "shop", "it takes a role there, which root or daemon can give"},
		{frank, access.ProjectCreate, "shop", `in project "default": it takes the role security-admin, which root or daemon or alice can give`},
		{nobody, access.KeyGrantRetire, "default", "it takes a grant of the key, which root or daemon or alice can give"},
	} {
		err := a.Check(t.Context(), c.who, c.action, c.project)
		if c.want == "" {
			must(t, err)
		} else if r := refusal.From(err); r == nil || r.Code != refusal.Denied || !strings.HasSuffix(r.Message, c.want) || !strings.Contains(r.Hint, "root") {
			t.Errorf("%s may not %v: %v, want …%s", c.who.User, c.action, err, c.want)
		}
	}
}

// What is about the whole store asks for roles in project default: a project's administrator must not lock the root key of all.
func TestStoreIsNotAProjectsMatter(t *testing.T) {
	a := newShop(t)
	give(t, a, "admin of shop", inShop(frank, access.SecurityAdmin))
	for _, action := range []access.Action{access.RootLock, access.RootUnlock, access.SlotAdd, access.SlotReseal, access.SlotRemove, access.SlotList, access.RecoveryCreate, access.RecoveryOpen, access.RecoveryVerify, access.ProjectCreate, access.ProjectDelete} {
		if err := a.Check(t.Context(), frank, action, "shop"); refusal.CodeOf(err) != refusal.Denied {
			t.Errorf("an administrator of project shop may %v: %v", action, err)
		}
		must(t, a.Check(t.Context(), admin, action, "shop"))
	}
}

func TestProjectsComeAndGo(t *testing.T) {
	a := newShop(t)
	ctx := t.Context()
	names := func(c access.Caller) (names []string) {
		list, err := a.Projects(ctx, c)
		must(t, err)
		for _, p := range list {
			names = append(names, p.Name)
		}
		return names
	}
	for c, want := range map[access.Caller]string{root: "[default shop]", admin: "[default shop]", audits: "[default shop]", user: "[default]", frank: "[shop]", nobody: "[]"} {
		if got := fmt.Sprint(names(c)); got != want {
			t.Errorf("%s sees the projects %s, want %s", c.User, got, want)
		}
	}
	for _, name := range []string{"", "a/b", ".", "..", "-x", strings.Repeat("x", 65), "ü", "a b"} {
		if _, err := a.CreateProject(ctx, "bad", root, name, noon); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("a project %q: %v", name, err)
		}
	}
	for _, name := range []string{"shop", "default"} {
		if _, err := a.CreateProject(ctx, "twice", root, name, noon); refusal.CodeOf(err) != refusal.Busy {
			t.Errorf("a second project %s: %v", name, err)
		}
	}
	if again, err := a.CreateProject(ctx, "shop", admin, "shop", noon.Add(time.Hour)); err != nil || !again.Created.Equal(noon) || again.By != "alice" {
		t.Errorf("the same call again: %+v, %v", again, err)
	}
	set, err := a.SetProject(ctx, "set", "shop", func(p *access.Project) { p.EncryptByDefault, p.DefaultKey = true, "k" })
	must(t, err)
	if got, err := a.Project(ctx, "shop"); err != nil || got != set || !got.EncryptByDefault || got.DefaultKey != "k" || got.By != "alice" {
		t.Errorf("project shop is %+v, %v", got, err)
	}
	_, err = a.SetProject(ctx, "set default", "default", func(p *access.Project) { p.EncryptByDefault = true })
	must(t, err)
	if got := fmt.Sprint(names(root)); got != "[default shop]" {
		t.Errorf("the projects are %s", got)
	}
	if refusal.CodeOf(a.DeleteProject(ctx, "delete default", "default")) != refusal.Busy {
		t.Error("project default is deleted")
	}
}

// Roles end with their project, however many there are: they must not come to life in a later one of that name.
func TestRolesEndWithTheProject(t *testing.T) {
	a := newShop(t)
	ctx := t.Context()
	for i := range uint32(70) {
		c := access.Caller{UID: 2000 + i, User: "many"}
		give(t, a, fmt.Sprint("many", i), inShop(c, access.User))
	}
	must(t, a.DeleteProject(ctx, "delete", "shop"))
	if refusal.CodeOf(a.DeleteProject(ctx, "again", "shop")) != refusal.NotFound {
		t.Error("a project is deleted twice")
	}
	_, err := a.CreateProject(ctx, "new", root, "shop", noon)
	must(t, err)
	if list, err := a.List(ctx, "shop"); err != nil || len(list) != 0 {
		t.Errorf("roles of before: %v, %v", list, err)
	}
	if refusal.CodeOf(a.Check(ctx, frank, access.DiskList, "shop")) != refusal.Denied {
		t.Error("a role outlives its project")
	}
}

// Rule C17: one person holds both only by two grants, of which the second says so, and is not his own.
func TestRuleC17_BothRolesTakeTwoGrants(t *testing.T) {
	a := newShop(t)
	if _, err := a.Grant(t.Context(), "self", admin, inShop(admin, access.User)); refusal.CodeOf(err) != refusal.Denied || !strings.Contains(refusal.From(err).Hint, "root or daemon") {
		t.Errorf("an administrator gives himself the use of data: %v", err)
	}
	if both := give(t, a, "other", inShop(frank, access.Auditor)); both {
		t.Error("user and auditor are told to be kept apart")
	}
	if both := give(t, a, "both", inShop(admin, access.User)); !both {
		t.Error("the second of both roles says nothing")
	}
	must(t, a.Check(t.Context(), admin, access.DiskAttach, "shop"))
	if both, err := a.Grant(t.Context(), "reads", admin, inShop(admin, access.Auditor)); err != nil || both {
		t.Errorf("who is both already makes himself auditor: %v, %v", both, err)
	}
	if _, err := a.Grant(t.Context(), "root", root, holding(root, access.User)); err != nil {
		t.Errorf("root, who has every role: %v", err)
	}
}

// A damaged record of a project keeps nobody from its disks, but from guessing how new ones are made.
func TestDamagedProject(t *testing.T) {
	s := catalog.Memory()
	a := access.New(s, self)
	_, err := a.CreateProject(t.Context(), "make", root, "shop", noon)
	must(t, err)
	give(t, a, "frank", inShop(frank, access.User))
	for i, value := range []string{"", "{", `{"v":2,"name":"shop"}`, `{"v":1,"name":"other"}`, `{"v":1,"name":"shop","plain_by_default":true}`} {
		must(t, s.Update(t.Context(), fmt.Sprint("bad", i), func(txn catalog.Txn) error { return txn.Put("project/shop", []byte(value)) }))
		must(t, a.Check(t.Context(), frank, access.DiskAttach, "shop"))
		if _, err := a.Project(t.Context(), "shop"); refusal.CodeOf(err) != refusal.Damaged {
			t.Errorf("%q: %v", value, err)
		}
	}
	must(t, a.DeleteProject(t.Context(), "delete", "shop"))
}

// What does not answer is an error, and lets nobody in.
func TestClosedStoreLetsNobodyIn(t *testing.T) {
	s := catalog.Memory()
	a := access.New(s, self)
	must(t, s.Close())
	for _, c := range []access.Caller{root, user} {
		if err := a.Check(t.Context(), c, access.DiskList, "shop"); !errors.Is(err, catalog.ErrClosed) {
			t.Errorf("%s: %v", c.User, err)
		}
	}
}
