package access_test

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

var (
	root   = access.Caller{UID: 0, User: "root"}
	self   = access.Caller{UID: 100, User: "daemon"}
	admin  = access.Caller{UID: 1001, User: "alice"}
	user   = access.Caller{UID: 1002, User: "bob"}
	audits = access.Caller{UID: 1003, User: "carol"}
	nobody = access.Caller{UID: 1004, User: "dave"}
)

func newAccess(t *testing.T) *access.Access {
	t.Helper()
	a := access.New(catalog.Memory(), self)
	for c, role := range map[access.Caller]access.Role{admin: access.SecurityAdmin, user: access.User, audits: access.Auditor} {
		give(t, a, "grant-"+c.User, holding(c, role))
	}
	return a
}

func holding(c access.Caller, role access.Role) access.Holding {
	return access.Holding{UID: c.UID, User: c.User, Project: access.DefaultProject, Role: role}
}

// give has root grant a role.
func give(t *testing.T, a *access.Access, request string, h access.Holding) (both bool) {
	t.Helper()
	both, err := a.Grant(t.Context(), request, root, h)
	must(t, err)
	return both
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// allowed is the policy as it should be: A for the security administrator, U for the user, R for the auditor, N for
// who has no role. Root and the daemon's own user may do everything.
var allowed = map[access.Action]string{
	access.StatusShow: "AURN", access.MetricsShow: "AUR", access.GrantCreate: "A", access.GrantList: "AUR", access.GrantRevoke: "A",
	access.KeyCreate: "AU", access.KeyList: "AUR", access.KeyShow: "AUR", access.KeyEnable: "A", access.KeyDisable: "A",
	access.KeyUpdate: "A", access.KeyScheduleDeletion: "A", access.KeyCancelDeletion: "A", access.KeyDelete: "A", access.KeyPredict: "A",
	access.KeyUses: "AUR", access.ClockShow: "AUR", access.ClockAccept: "A",
	access.DiskCreate: "U", access.DiskList: "AUR", access.DiskShow: "AUR", access.DiskExtend: "U", access.DiskDelete: "U",
	access.DiskEscrow: "U", access.DiskExport: "U", access.DiskAttach: "U", access.DiskDetach: "U", access.CheckRun: "AUR",
	access.KeyRotate: "A", access.KeySetRotation: "A", access.KeyRewrap: "AU", access.KeyPrepareImport: "A", access.KeyImport: "A", access.KeyDeleteMaterial: "A",
	access.DiskRewrap: "AU",
	access.DiskRekey:  "U", access.SnapshotDelete: "U",
	access.SnapshotCreate: "U", access.SnapshotList: "AUR", access.SnapshotShow: "AUR", access.DiskRollback: "U",
	access.ImageCreate: "U", access.ImageCopy: "U", access.ImageList: "AUR", access.ImageShow: "AUR", access.ImageDelete: "U",
	access.BackupCreate: "U", access.BackupList: "AUR", access.BackupShow: "AUR", access.BackupVerify: "AUR", access.BackupKeyShow: "AUR", access.BackupExport: "U",
	access.BackupOffer: "U", access.BackupImport: "U", access.BackupDelete: "U", access.BackupPrune: "U", access.BackupRestore: "U",
	access.RootUnlock: "A", access.RootLock: "A", access.SlotList: "A", access.SlotAdd: "A", access.SlotRemove: "A",
	access.SlotReseal: "A", access.RecoveryCreate: "A", access.RecoveryOpen: "A", access.RecoveryVerify: "A",
	access.JobList: "AUR", access.JobShow: "AUR", access.JobCancel: "AU",
	access.RoleGrant: "A", access.RoleList: "AR", access.RoleRevoke: "A",
	access.ProjectCreate: "A", access.ProjectList: "AURN", access.ProjectShow: "AUR", access.ProjectSet: "A", access.ProjectDelete: "A", access.StoreShow: "AR",
	access.KeyGrantCreate: "A", access.KeyGrantList: "AR", access.KeyGrantRevoke: "A", access.KeyGrantRetire: "",
	access.ServerCreate: "U", access.ServerList: "AUR", access.ServerShow: "AUR", access.ServerStart: "U", access.ServerStop: "U", access.ServerDelete: "U",
	access.ServerAttach: "U", access.ServerDetach: "U", access.ConfigCreate: "U", access.ConfigList: "AUR", access.ConfigShow: "AUR", access.ConfigDelete: "U",
	access.GroupCreate: "U", access.GroupList: "AUR", access.GroupShow: "AUR", access.GroupScale: "U", access.GroupDelete: "U",
	access.AuditList: "AR", access.AuditVerify: "AR", access.AuditHead: "AR",
}

func TestRuleC17_RolesAreSeparate(t *testing.T) {
	a := newAccess(t)
	callers := map[access.Caller]string{root: "", self: "", admin: "A", user: "U", audits: "R", nobody: "N"}
	for _, action := range access.Actions() {
		letters, ok := allowed[action]
		if !ok {
			t.Errorf("%v is in no row of this table", action)
		}
		for c, letter := range callers {
			err := a.Check(t.Context(), c, action, access.DefaultProject)
			if letter == "" || strings.Contains(letters, letter) {
				must(t, err)
				continue
			}
			if refusal.CodeOf(err) != refusal.Denied {
				t.Errorf("%s may %v: %v", c.User, action, err)
			}
		}
	}
	if err := a.Check(t.Context(), root, access.Action(1000), access.DefaultProject); err == nil {
		t.Error("an action that does not exist is allowed")
	}
}

func TestRuleA37_OnlyTheSecurityAdministratorGrants(t *testing.T) {
	a := newAccess(t)
	for _, c := range []access.Caller{user, audits, nobody} {
		err := refusal.From(a.Check(t.Context(), c, access.GrantCreate, access.DefaultProject))
		for _, want := range []string{c.User, "security-admin", "root", "daemon", "alice"} {
			if !strings.Contains(err.Message, want) {
				t.Errorf("%q does not name %s", err.Message, want)
			}
		}
		if err.Hint == "" {
			t.Errorf("%q has no hint", err.Message)
		}
	}
}

// While the catalog is closed nobody's roles are known: root and the daemon's own user may do everything, others see the
// status and are told whom to ask.
func TestClosedCatalog(t *testing.T) {
	a := access.Closed(self)
	for _, action := range access.Actions() {
		must(t, a.Check(t.Context(), root, action, access.DefaultProject))
		must(t, a.Check(t.Context(), self, action, access.DefaultProject))
		err := a.Check(t.Context(), admin, action, access.DefaultProject)
		if action == access.StatusShow || action == access.ProjectList {
			must(t, err)
			continue
		}
		if refusal.CodeOf(err) != refusal.Denied || !strings.Contains(err.Error(), "root or daemon") {
			t.Errorf("%s may %v: %v", admin.User, action, err)
		}
	}
	if err := a.Check(t.Context(), admin, access.StatusShow, "other"); refusal.CodeOf(err) != refusal.Denied {
		t.Errorf("another project: %v", err)
	}
}

func TestUnknownProject(t *testing.T) {
	a := newAccess(t)
	for c, want := range map[access.Caller]refusal.Code{root: refusal.NotFound, self: refusal.NotFound, user: refusal.Denied, admin: refusal.NotFound} {
		if err := a.Check(t.Context(), c, access.StatusShow, "other"); refusal.CodeOf(err) != want {
			t.Errorf("%s gets %v", c.User, err)
		}
	}
}

func TestRolesAreKeptAndRevoked(t *testing.T) {
	a := newAccess(t)
	ctx := t.Context()
	give(t, a, "again", holding(user, access.User))
	give(t, a, "second", holding(user, access.Auditor))
	list, err := a.List(ctx, access.DefaultProject)
	must(t, err)
	var got []string
	for _, h := range list {
		got = append(got, fmt.Sprintf("%s:%s", h.User, h.Role))
	}
	if want := "[alice:security-admin bob:user bob:auditor carol:auditor]"; fmt.Sprint(got) != want {
		t.Errorf("roles are %v, want %s", got, want)
	}
	must(t, a.Revoke(ctx, "revoke", holding(user, access.User)))
	if refusal.CodeOf(a.Revoke(ctx, "twice", holding(user, access.User))) != refusal.NotFound {
		t.Error("a role is revoked twice")
	}
	if a.Check(ctx, user, access.DiskAttach, access.DefaultProject) == nil {
		t.Error("a user attaches after the role is revoked")
	}
	must(t, a.Check(ctx, user, access.DiskList, access.DefaultProject))
	if _, err := a.Grant(ctx, "bad", root, holding(user, "king")); refusal.CodeOf(err) != refusal.Usage {
		t.Error("a role that does not exist is granted")
	}
}

func TestDamagedRolesAllowNothing(t *testing.T) {
	s := catalog.Memory()
	a := access.New(s, self)
	for i, value := range []string{"", "{", `{"v":2,"user":"bob","roles":["user"]}`, `{"v":1,"user":"bob","roles":["user"],"until":"noon"}`,
		`{"v":1,"user":"bob","roles":["king"]}`, `{"v":1,"user":"bob","roles":["user","user"]}`, `{"v":1,"user":"bob","roles":["user"]}{}`} {
		must(t, s.Update(t.Context(), fmt.Sprint("bad", i), func(txn catalog.Txn) error {
			return txn.Put("role/default/0000001002", []byte(value))
		}))
		if err := a.Check(t.Context(), user, access.DiskAttach, access.DefaultProject); refusal.CodeOf(err) != refusal.Damaged {
			t.Errorf("%q: %v", value, err)
		}
	}
}
