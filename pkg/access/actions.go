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
	KeyUpdate
	KeyScheduleDeletion
	KeyCancelDeletion
	KeyDelete
	KeyUses
	KeyPredict
	KeyRotate
	KeySetRotation
	KeyRewrap
	KeyPrepareImport
	KeyImport
	KeyDeleteMaterial
	ClockShow
	ClockAccept
	DiskCreate
	DiskList
	DiskShow
	DiskExtend
	DiskRewrap
	DiskRekey
	DiskDelete
	DiskEscrow
	DiskExport
	DiskAttach
	DiskDetach
	SnapshotCreate
	SnapshotList
	SnapshotShow
	DiskRollback
	SnapshotDelete
	ImageCreate
	ImageCopy
	ImageList
	ImageShow
	ImageDelete
	BackupCreate
	BackupList
	BackupShow
	BackupVerify
	BackupExport
	BackupOffer
	BackupImport
	BackupDelete
	BackupPrune
	BackupKeyShow
	BackupRestore
	CheckRun
	JobList
	JobShow
	JobCancel
	RootUnlock
	RootLock
	SlotList
	SlotAdd
	SlotReseal
	SlotRemove
	RecoveryCreate
	RecoveryOpen
	RecoveryVerify
	RoleGrant
	RoleList
	RoleRevoke
	ProjectCreate
	ProjectList
	ProjectShow
	ProjectSet
	ProjectDelete
	KeyGrantCreate
	KeyGrantList
	KeyGrantRevoke
	KeyGrantRetire
	StoreShow
	AuditList
	AuditVerify
	AuditHead
	ServerCreate
	ServerList
	ServerShow
	ServerStart
	ServerStop
	ServerDelete
	ServerAttach
	ServerDetach
	ConfigCreate
	ConfigList
	ConfigShow
	ConfigDelete
	GroupCreate
	GroupList
	GroupShow
	GroupScale
	GroupDelete
)

// rule says what an action is called and who may do it.
type rule struct {
	verb string
	// roles allow it, any one of them, in the project that the call is about.
	roles []Role
	// grant is the operation of a key grant that allows it too, for what is under that key.
	grant Operation
	// store tells what is about the whole store: its roles are those in the project default, whatever project a call names.
	store bool
	// overseers tells that those who see the whole store may do it in each project.
	overseers bool
	// anyone in a project may do it, and everybody in the project default, which everybody knows.
	anyone bool
}

// What several rules share.
var (
	everyRole = []Role{User, SecurityAdmin, Auditor}
	overseers = []Role{SecurityAdmin, Auditor}
	users     = []Role{User}
	admins    = []Role{SecurityAdmin}
)

// rules is the whole policy (rule C17: administering keys and using data are separate roles). A key's material in
// clear, which escrow hands out, is data: a security administrator must not get it.
var rules = map[Action]rule{
	StatusShow:  {verb: "see the status", anyone: true},
	MetricsShow: {verb: "see the metrics", roles: everyRole},
	GrantCreate: {verb: "grant the key store's rights", roles: admins},
	GrantList:   {verb: "list grants", roles: everyRole},
	GrantRevoke: {verb: "revoke the key store's rights", roles: admins},
	KeyCreate:   {verb: "create keys", roles: []Role{User, SecurityAdmin}},
	KeyList:     {verb: "list keys", roles: everyRole, grant: Describe},
	KeyShow:     {verb: "see keys", roles: everyRole, grant: Describe},
	KeyEnable:   {verb: "enable keys", roles: admins},
	KeyDisable:  {verb: "disable keys", roles: admins},
	KeyUpdate:   {verb: "change keys", roles: admins},
	KeyUses:     {verb: "see what keys are used by", roles: everyRole, grant: Describe},
	// Who may do what is tried out may try it out.
	KeyPredict:          {verb: "try out what is done to keys", roles: admins},
	KeyScheduleDeletion: {verb: "schedule the deletion of keys", roles: admins},
	KeyCancelDeletion:   {verb: "cancel the deletion of keys", roles: admins},
	KeyDelete:           {verb: "delete keys", roles: admins},
	KeyRotate:           {verb: "rotate keys", roles: admins},
	KeySetRotation:      {verb: "set the rotation of keys", roles: admins},
	// Which key data is under shows nothing of it, so that who keeps keys in order may change it too.
	KeyRewrap:         {verb: "re-wrap all disks under a key", roles: []Role{User, SecurityAdmin}},
	KeyPrepareImport:  {verb: "prepare the import of key material", roles: admins},
	KeyImport:         {verb: "import key material", roles: admins},
	KeyDeleteMaterial: {verb: "delete imported key material", roles: admins},
	ClockShow:         {verb: "see the clock", roles: everyRole},
	ClockAccept:       {verb: "accept the clock", roles: admins, store: true},

	DiskCreate: {verb: "create disks", roles: users, grant: Encrypt},
	DiskList:   {verb: "list disks", roles: everyRole, grant: Decrypt},
	DiskShow:   {verb: "see disks", roles: everyRole, grant: Decrypt},
	DiskExtend: {verb: "extend disks", roles: users},
	DiskRewrap: {verb: "put disks under another key", roles: []Role{User, SecurityAdmin}, grant: Decrypt},
	// All of the data is read and written, as by who attaches the disk.
	DiskRekey:  {verb: "give disks another data key", roles: users},
	DiskDelete: {verb: "delete disks", roles: users},
	// What leaves is a key of its own and all of the data under it: nothing less than escrow.
	DiskExport:     {verb: "export a disk with a key to it", roles: users},
	DiskEscrow:     {verb: "take a disk's keys into escrow", roles: users},
	DiskAttach:     {verb: "attach disks", roles: users, grant: Decrypt},
	DiskDetach:     {verb: "detach disks", roles: users, grant: Decrypt},
	SnapshotCreate: {verb: "create snapshots", roles: users},
	SnapshotList:   {verb: "list snapshots", roles: everyRole, grant: Decrypt},
	SnapshotShow:   {verb: "see snapshots", roles: everyRole, grant: Decrypt},
	// What was written since is lost, as in a deletion.
	DiskRollback:   {verb: "roll disks back", roles: users},
	SnapshotDelete: {verb: "delete snapshots", roles: users},
	// A copy may be plain, so that it takes who may read the data: as with disks.
	ImageCreate: {verb: "create images", roles: users},
	ImageCopy:   {verb: "copy images", roles: users},
	ImageList:   {verb: "list images", roles: everyRole, grant: Decrypt},
	ImageShow:   {verb: "see images", roles: everyRole, grant: Decrypt},
	ImageDelete: {verb: "delete images", roles: users},

	BackupCreate: {verb: "create backups", roles: users},
	BackupList:   {verb: "list backups", roles: everyRole},
	BackupShow:   {verb: "see backups", roles: everyRole},
	BackupVerify: {verb: "verify backups", roles: everyRole},
	BackupExport: {verb: "export backups", roles: users},
	BackupOffer:  {verb: "ask what is there of a backup", roles: users},
	BackupImport: {verb: "import backups", roles: users},
	BackupDelete: {verb: "delete backups", roles: users},
	BackupPrune:  {verb: "prune backups", roles: users},
	// It is public: with it others verify.
	BackupKeyShow: {verb: "see the public key of backups", roles: everyRole},
	// Asked beside DiskCreate: a grant of a key alone does not let its holder read what others had backed up.
	BackupRestore: {verb: "make disks of backups", roles: users},
	CheckRun:      {verb: "check for damage", roles: everyRole},
	JobList:       {verb: "list jobs", roles: everyRole},
	JobShow:       {verb: "see jobs", roles: everyRole, grant: AnyOperation},
	JobCancel:     {verb: "cancel jobs", roles: []Role{User, SecurityAdmin}, grant: AnyOperation},
	RootUnlock:    {verb: "unlock the root key", roles: admins, store: true},
	RootLock:      {verb: "lock the root key", roles: admins, store: true},
	SlotList:      {verb: "list the root key's slots", roles: admins, store: true},
	SlotAdd:       {verb: "add a slot to the root key", roles: admins, store: true},
	SlotReseal:    {verb: "seal a slot of the root key anew", roles: admins, store: true},
	SlotRemove:    {verb: "remove a slot of the root key", roles: admins, store: true},
	// A kit opens no more than a passphrase of the administrator's own would.
	RecoveryCreate: {verb: "create a recovery kit", roles: admins, store: true},
	RecoveryOpen:   {verb: "open the root key by a recovery kit", roles: admins, store: true},
	RecoveryVerify: {verb: "verify a recovery kit", roles: admins, store: true},

	RoleGrant:  {verb: "grant roles", roles: admins},
	RoleList:   {verb: "list roles", roles: overseers},
	RoleRevoke: {verb: "revoke roles", roles: admins},

	ProjectCreate: {verb: "create projects", roles: admins, store: true},
	ProjectList:   {verb: "list projects", anyone: true, store: true},
	ProjectShow:   {verb: "see the project", roles: everyRole, overseers: true},
	ProjectSet:    {verb: "change the project", roles: admins},
	ProjectDelete: {verb: "delete projects", roles: admins, store: true},

	// Status, checks and metrics of all projects, and which projects there are.
	StoreShow: {verb: "see what is in all projects", roles: overseers, store: true},

	KeyGrantCreate: {verb: "grant the use of keys", roles: admins},
	KeyGrantList:   {verb: "list the grants of keys", roles: overseers, grant: AnyOperation},
	KeyGrantRevoke: {verb: "revoke the use of keys", roles: admins},
	KeyGrantRetire: {verb: "retire a grant", grant: AnyOperation},

	AuditList:   {verb: "read the audit log", roles: overseers},
	AuditVerify: {verb: "verify the audit log", roles: overseers, store: true},
	AuditHead:   {verb: "see the audit log's head", roles: overseers, store: true},

	// A server has several disks, under several keys: a grant of one of them is not enough.
	ServerCreate: {verb: "create servers", roles: users},
	ServerList:   {verb: "list servers", roles: everyRole},
	ServerShow:   {verb: "see servers", roles: everyRole},
	ServerStart:  {verb: "start servers", roles: users},
	ServerStop:   {verb: "stop servers", roles: users},
	ServerDelete: {verb: "delete servers", roles: users},
	ServerAttach: {verb: "give servers disks", roles: users},
	ServerDetach: {verb: "take disks from servers", roles: users},
	ConfigCreate: {verb: "create scaling configurations", roles: users},
	ConfigList:   {verb: "list scaling configurations", roles: everyRole},
	ConfigShow:   {verb: "see scaling configurations", roles: everyRole},
	ConfigDelete: {verb: "delete scaling configurations", roles: users},
	GroupCreate:  {verb: "create scaling groups", roles: users},
	GroupList:    {verb: "list scaling groups", roles: everyRole},
	GroupShow:    {verb: "see scaling groups", roles: everyRole},
	GroupScale:   {verb: "scale groups", roles: users},
	GroupDelete:  {verb: "delete scaling groups", roles: users},
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
