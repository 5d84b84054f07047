package access

import "strings"

// Action is one thing that a caller may ask of the daemon: routes that do the same thing in two ways share one.
type Action int

// The actions.
const (
	StatusShow Action = iota + 1
	MetricsShow
	GrantCreate
	GrantList
	GrantRevoke
	KeyCreate
	KeyList
	KeyShow
	KeyEnable
	KeyDisable
	DiskCreate
	DiskList
	DiskShow
	DiskExtend
	DiskDelete
	DiskEscrow
	DiskAttach
	DiskDetach
	CheckRun
	JobList
	JobShow
	JobCancel
	RootUnlock
	RootLock
	SlotList
	SlotAdd
	SlotRemove
	RoleGrant
	RoleList
	RoleRevoke
)

// rule says what an action is called and which of the roles allow it; any one does.
type rule struct {
	verb   string
	roles  []Role
	anyone bool
}

// rules is the whole policy (rule C17: administering keys and using data are separate roles). A key's material in
// clear, which escrow hands out, is data: a security administrator must not get it.
var rules = map[Action]rule{
	StatusShow:  {"see the status", []Role{User, SecurityAdmin, Auditor}, true},
	MetricsShow: {"see the metrics", []Role{User, SecurityAdmin, Auditor}, false},
	GrantCreate: {"grant the key store's rights", []Role{SecurityAdmin}, false},
	GrantList:   {"list grants", []Role{User, SecurityAdmin, Auditor}, false},
	GrantRevoke: {"revoke the key store's rights", []Role{SecurityAdmin}, false},
	KeyCreate:   {"create keys", []Role{User, SecurityAdmin}, false},
	KeyList:     {"list keys", []Role{User, SecurityAdmin, Auditor}, false},
	KeyShow:     {"see keys", []Role{User, SecurityAdmin, Auditor}, false},
	KeyEnable:   {"enable keys", []Role{SecurityAdmin}, false},
	KeyDisable:  {"disable keys", []Role{SecurityAdmin}, false},
	DiskCreate:  {"create disks", []Role{User}, false},
	DiskList:    {"list disks", []Role{User, SecurityAdmin, Auditor}, false},
	DiskShow:    {"see disks", []Role{User, SecurityAdmin, Auditor}, false},
	DiskExtend:  {"extend disks", []Role{User}, false},
	DiskDelete:  {"delete disks", []Role{User}, false},
	DiskEscrow:  {"take a disk's keys into escrow", []Role{User}, false},
	DiskAttach:  {"attach disks", []Role{User}, false},
	DiskDetach:  {"detach disks", []Role{User}, false},
	CheckRun:    {"check for damage", []Role{User, SecurityAdmin, Auditor}, false},
	JobList:     {"list jobs", []Role{User, SecurityAdmin, Auditor}, false},
	JobShow:     {"see jobs", []Role{User, SecurityAdmin, Auditor}, false},
	JobCancel:   {"cancel jobs", []Role{User, SecurityAdmin}, false},
	RootUnlock:  {"unlock the root key", []Role{SecurityAdmin}, false},
	RootLock:    {"lock the root key", []Role{SecurityAdmin}, false},
	SlotList:    {"list the root key's slots", []Role{SecurityAdmin}, false},
	SlotAdd:     {"add a slot to the root key", []Role{SecurityAdmin}, false},
	SlotRemove:  {"remove a slot of the root key", []Role{SecurityAdmin}, false},
	RoleGrant:   {"grant roles", []Role{SecurityAdmin}, false},
	RoleList:    {"list roles", []Role{SecurityAdmin, Auditor}, false},
	RoleRevoke:  {"revoke roles", []Role{SecurityAdmin}, false},
}

// String is what a refusal calls the action.
func (a Action) String() string {
	if r, ok := rules[a]; ok {
		return r.verb
	}
	return "do the unknown"
}

func joinRoles(roles []Role) string {
	words := make([]string, len(roles))
	for i, r := range roles {
		words[i] = string(r)
	}
	return strings.Join(words, " or ")
}
