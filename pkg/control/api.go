// Package control is the local API: its types, its routes and its Go client. HTTP and JSON on a unix socket; who
// calls is told by the socket's peer credentials. The JSON that a command prints is the JSON that the API answers.
package control

import "time"

// What goes with a call besides its path and body.
const (
	// HeaderRequest carries the request id; the client makes it, so that a change that is asked twice happens once.
	HeaderRequest = "X-Request-Id"
	// QueryProject names the project that a call is about; "default" where it is missing.
	QueryProject = "project"
	// QueryYes is "true" where the caller has confirmed an act that destroys or strands data.
	QueryYes = "yes"
	// QueryWait asks RouteJobShow to answer only when the job has ended or its revision is past QueryAfter, at the
	// latest after that long (Go's duration syntax).
	QueryWait  = "wait"
	QueryAfter = "after"
)

// DefaultProject is the project of a call that names none.
const DefaultProject = "default"

// Routes, as net/http patterns. {disk}, {snapshot}, {key}, {image}, {slot} and {project} are ids or names; an alias with slashes is path-escaped.
const (
	RouteStatus = "GET /v1/status"
	// RouteMetrics is where Prometheus looks, and answers in its format.
	RouteMetrics           = "GET /metrics"
	RouteGrantCreate       = "POST /v1/grants"
	RouteGrantList         = "GET /v1/grants"
	RouteGrantRevoke       = "DELETE /v1/grants"
	RouteKeyCreate         = "POST /v1/keys"
	RouteKeyList           = "GET /v1/keys"
	RouteKeyShow           = "GET /v1/keys/{key}"
	RouteKeyEnable         = "POST /v1/keys/{key}/enable"
	RouteKeyDisable        = "POST /v1/keys/{key}/disable"
	RouteKeyUpdate         = "POST /v1/keys/{key}/update"
	RouteKeySchedule       = "POST /v1/keys/{key}/schedule-deletion"
	RouteKeyCancel         = "POST /v1/keys/{key}/cancel-deletion"
	RouteKeyDelete         = "DELETE /v1/keys/{key}"
	RouteKeyUses           = "GET /v1/keys/{key}/uses"
	RouteKeyRotate         = "POST /v1/keys/{key}/rotate"
	RouteKeyRotation       = "POST /v1/keys/{key}/rotation"
	RouteKeyRewrap         = "POST /v1/keys/{key}/rewrap"
	RouteKeyPrepare        = "POST /v1/keys/{key}/import/prepare"
	RouteKeyImport         = "POST /v1/keys/{key}/import"
	RouteKeyDeleteMaterial = "DELETE /v1/keys/{key}/material"
	// RouteKeyPredict tells what the verb in QueryVerb would do (and in how many QueryDays), and does nothing.
	RouteKeyPredict   = "GET /v1/keys/{key}/predict"
	RouteClockShow    = "GET /v1/clock"
	RouteClockAccept  = "POST /v1/clock/accept"
	RouteDiskCreate   = "POST /v1/disks"
	RouteDiskList     = "GET /v1/disks"
	RouteDiskShow     = "GET /v1/disks/{disk}"
	RouteDiskExtend   = "POST /v1/disks/{disk}/extend"
	RouteDiskRewrap   = "POST /v1/disks/{disk}/rewrap"
	RouteDiskRekey    = "POST /v1/disks/{disk}/rekey"
	RouteDiskDelete   = "DELETE /v1/disks/{disk}"
	RouteDiskEscrow   = "POST /v1/disks/{disk}/escrow"
	RouteDiskRollback = "POST /v1/disks/{disk}/rollback"
	// RouteDiskExport answers with Escrow as one line of JSON, and then as many bytes of ciphertext as HeaderSize says.
	RouteDiskExport     = "POST /v1/disks/{disk}/export"
	RouteAttach         = "POST /v1/disks/{disk}/attach"
	RouteDetach         = "POST /v1/disks/{disk}/detach"
	RouteSnapshotCreate = "POST /v1/snapshots"
	RouteSnapshotList   = "GET /v1/snapshots"
	RouteSnapshotShow   = "GET /v1/snapshots/{snapshot}"
	// RouteImageUpload takes the data of an image as an upload; what it is to be stands in its query (see ImageUpload).
	RouteImageCreate = "POST /v1/images"
	RouteImageUpload = "POST /v1/image-uploads"
	RouteImageCopy   = "POST /v1/images/{image}/copy"
	RouteImageList   = "GET /v1/images"
	RouteImageShow   = "GET /v1/images/{image}"
	RouteImageDelete = "DELETE /v1/images/{image}"
	// RouteBackupExport answers with the bytes of a backup's file from QueryFrom on. RouteBackupOffer tells how much of a file is here, and
	// RouteBackupImport takes its header and the rest as an upload.
	RouteBackupCreate   = "POST /v1/backups"
	RouteBackupList     = "GET /v1/backups"
	RouteBackupShow     = "GET /v1/backups/{backup}"
	RouteBackupVerify   = "POST /v1/backups/{backup}/verify"
	RouteBackupExport   = "POST /v1/backups/{backup}/export"
	RouteBackupDelete   = "DELETE /v1/backups/{backup}"
	RouteBackupOffer    = "POST /v1/backup-offers"
	RouteBackupImport   = "POST /v1/backup-imports"
	RouteBackupPrune    = "POST /v1/backup-prunes"
	RouteBackupKey      = "GET /v1/backup-key"
	RouteSnapshotDelete = "DELETE /v1/snapshots/{snapshot}"
	RouteCheck          = "POST /v1/check"
	RouteRootUnlock     = "POST /v1/root/unlock"
	// RouteRootPassphrase and RouteSlotAdd are followed by a passphrase (see Asker), RouteSlotGive by a credential, RouteRecoveryOpen and
	// RouteRecoveryVerify by the shares of a recovery kit, one after the other.
	RouteRootPassphrase = "POST /v1/root/unlock/passphrase"
	RouteRootLock       = "POST /v1/root/lock"
	RouteSlotList       = "GET /v1/root/slots"
	RouteSlotAdd        = "POST /v1/root/slots/passphrase"
	RouteSlotKeyFile    = "POST /v1/root/slots/key-file"
	RouteSlotTPM        = "POST /v1/root/slots/tpm2"
	RouteSlotCredential = "POST /v1/root/slots/credential"
	RouteSlotGive       = "POST /v1/root/slots/credential/given"
	RouteSlotToken      = "POST /v1/root/slots/pkcs11"
	RouteSlotReseal     = "POST /v1/root/slots/{slot}/reseal"
	RouteSlotRemove     = "DELETE /v1/root/slots/{slot}"
	RouteRecoveryCreate = "POST /v1/root/recovery"
	RouteRecoveryOpen   = "POST /v1/root/recovery/open"
	RouteRecoveryVerify = "POST /v1/root/recovery/verify"
	// The user of RouteRoleRevoke is in its body, as is the grant of the two RouteKeyGrant routes at the end.
	RouteRoleGrant      = "POST /v1/roles"
	RouteRoleList       = "GET /v1/roles"
	RouteRoleRevoke     = "POST /v1/roles/revoke"
	RouteProjectCreate  = "POST /v1/projects"
	RouteProjectList    = "GET /v1/projects"
	RouteProjectShow    = "GET /v1/projects/{project}"
	RouteProjectSet     = "PATCH /v1/projects/{project}"
	RouteProjectDelete  = "DELETE /v1/projects/{project}"
	RouteKeyGrant       = "POST /v1/keys/{key}/grants"
	RouteKeyGrants      = "GET /v1/keys/{key}/grants"
	RouteKeyGrantRevoke = "POST /v1/keys/{key}/grants/revoke"
	RouteKeyGrantRetire = "POST /v1/keys/{key}/grants/retire"
	RouteJobList        = "GET /v1/jobs"
	RouteJobShow        = "GET /v1/jobs/{job}"
	RouteJobCancel      = "DELETE /v1/jobs/{job}"
	// RouteAuditList answers with records, a line of JSON each, as they stand in the log; a last line {"error": Error} says why it ends early.
	RouteAuditList   = "GET /v1/audit"
	RouteAuditVerify = "POST /v1/audit/verify"
	RouteAuditHead   = "GET /v1/audit/head"
)

// Status is what `status` prints.
type Status struct {
	Version   string    `json:"version"`
	PID       int       `json:"pid"`
	Started   time.Time `json:"started"`
	Region    string    `json:"region"`
	State     string    `json:"state"`
	Pool      string    `json:"pool"`
	RootKey   string    `json:"root_key"`
	Control   string    `json:"control"`
	NBD       string    `json:"nbd"`
	Disks     int       `json:"disks"`
	Attached  int       `json:"attached"`
	Locked    bool      `json:"locked"`
	KeyMemory Memory    `json:"key_memory"`
	PoolFree  int64     `json:"pool_free"`
	Warnings  []string  `json:"warnings"`
	// LockedSince is when the root key was locked; null while it is open.
	LockedSince *time.Time `json:"locked_since"`
	// Closed tells that the root key was not open since the daemon's start: then nothing is known of disks yet.
	Closed bool `json:"closed"`
	// Listen are all places where NBD is served, as URIs without an export.
	Listen []string `json:"listen"`
	// Protection is that of the process; KeyMemory is what it adds for keys.
	Protection Protection `json:"protection"`
	// Keys is filled where QueryKeys is "true".
	Keys []HeldKey `json:"keys,omitzero"`
}

// QueryKeys asks RouteStatus for the keys in memory.
const QueryKeys = "keys"

// Memory tells in what kind of memory keys lie, and how much of it is used: Locked is Used and what is free for more keys, Limit what the
// daemon may lock, 0 where nothing limits it.
type Memory struct {
	Kind   string `json:"kind"`
	Used   int    `json:"used"`
	Locked int    `json:"locked"`
	Limit  int    `json:"limit"`
	Keys   int    `json:"keys"`
}

// Protection tells what protects the daemon's process at this moment, as the kernel says.
type Protection struct {
	// Dumpable: processes of the same user may trace it, and the kernel may write its memory to a core dump.
	Dumpable bool `json:"dumpable"`
	// Core tells that its limit allows core files.
	Core       bool `json:"core"`
	NoNewPrivs bool `json:"no_new_privs"`
	// Signals would save registers in ordinary memory.
	Signals []string `json:"signals"`
	// Swap is "none", "forbidden" (there is some, but not for this process), "encrypted" or "unencrypted".
	Swap      string   `json:"swap"`
	SwapAreas []string `json:"swap_areas"`
	// Hibernation is "possible", "impossible" or "unknown". It writes all memory to disk, keys too unless they lie in memfd_secret.
	Hibernation string `json:"hibernation"`
}

// HeldKey is a key that is in memory now: never its bytes.
type HeldKey struct {
	Kind  string    `json:"kind"`
	ID    string    `json:"id"`
	For   string    `json:"for"`
	Since time.Time `json:"since"`
}

// Grant is the key store's rights for a project in a region.
type Grant struct {
	Project string    `json:"project"`
	Region  string    `json:"region"`
	By      string    `json:"by"`
	Created time.Time `json:"created"`
}

// Key is what `key show` prints.
type Key struct {
	ID           string     `json:"id"`
	Alias        string     `json:"alias"`
	Project      string     `json:"project"`
	State        string     `json:"state"`
	Default      bool       `json:"default"`
	Origin       string     `json:"origin"`
	Version      int        `json:"version"`
	Created      time.Time  `json:"created"`
	DeletionDate *time.Time `json:"deletion_date"`
	RotationDays *int       `json:"rotation_days"`
	// Expires is when imported key material is deleted.
	Expires     *time.Time        `json:"expires"`
	Description string            `json:"description"`
	Tags        map[string]string `json:"tags"`
}

// DiskCreate asks for a new disk. Encrypted is nil where the caller left the choice open.
type DiskCreate struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Encrypted  *bool  `json:"encrypted,omitempty"`
	Key        string `json:"key,omitempty"`
	SectorSize int    `json:"sector_size,omitempty"`
	HideHoles  bool   `json:"hide_holes,omitempty"`
	Shared     bool   `json:"shared,omitempty"`
	// FromSnapshot, FromImage or FromBackup names what the disk is to be made from; Full has it copy all of that in the background.
	FromSnapshot string `json:"from_snapshot,omitempty"`
	Full         bool   `json:"full,omitempty"`
	FromImage    string `json:"from_image,omitempty"`
	FromBackup   string `json:"from_backup,omitempty"`
}

// Disk is what `disk show` prints.
type Disk struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Project     string       `json:"project"`
	Size        int64        `json:"size"`
	SectorSize  int          `json:"sector_size"`
	Encrypted   bool         `json:"encrypted"`
	Key         *DiskKey     `json:"key"`
	HideHoles   bool         `json:"hide_holes"`
	Shared      bool         `json:"shared"`
	Status      string       `json:"status"`
	Source      *DiskSource  `json:"source"`
	Created     time.Time    `json:"created"`
	Layers      []DiskLayer  `json:"layers"`
	Attachments []Attachment `json:"attachments"`
	// Warnings say what a person should know after this call: more size than free space, or a flush that failed.
	Warnings []string `json:"warnings,omitempty"`
	// Space is counted by RouteDiskShow alone, where it can be.
	Space *DiskSpace `json:"space,omitempty"`
	// Bootable tells that it was made to boot a server from. Server is the one that has it, which RouteDiskShow alone tells.
	Bootable bool        `json:"bootable,omitempty"`
	Server   *DiskServer `json:"server,omitempty"`
}

// DiskServer is the server that has a disk, and as what.
type DiskServer struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Role string `json:"role"`
}

// DiskKey names the CMK that a disk is under.
type DiskKey struct {
	ID    string `json:"id"`
	Alias string `json:"alias"`
	State string `json:"state"`
}

// DiskSource is what a disk was made from.
type DiskSource struct {
	Kind string `json:"kind"`
	ID   string `json:"id"`
	Name string `json:"name"`
}

// DiskLayer is one layer of a disk, with the files that hold it.
type DiskLayer struct {
	ID       string   `json:"id"`
	Segments []string `json:"segments"`
}

// Attachment is one attachment of a disk. Those of a shared disk have one URI, so Clients are those of all.
type Attachment struct {
	ID       string    `json:"id"`
	URI      string    `json:"uri"`
	Device   *string   `json:"device"`
	Since    time.Time `json:"since"`
	ReadOnly bool      `json:"read_only"`
	By       string    `json:"by"`
	Allow    []string  `json:"allow"`
	Clients  int       `json:"clients"`
	// Mount is where whoever attached it has mounted it.
	Mount string `json:"mount,omitempty"`
}

// DiskExtend asks for a new, larger size.
type DiskExtend struct {
	Size int64 `json:"size"`
}

// Attach asks for a disk to be made readable. Device and Mount are for who asks later: the kernel's device that the caller is about to
// connect, which root alone may name, and the directory where it is to be mounted.
type Attach struct {
	ReadOnly bool     `json:"read_only,omitempty"`
	Allow    []string `json:"allow,omitempty"`
	Device   string   `json:"device,omitempty"`
	Mount    string   `json:"mount,omitempty"`
	// Continues has the disk attached only where it is as an attachment before left it.
	Continues *Continues `json:"continues,omitempty"`
}

// Continues names the attachment that another one goes on from. The disk must be the same one, nobody may have attached it since or put
// it back to an older state, and no write that was answered may be lost; else the attach is refused as damage (exit 8).
type Continues struct {
	DiskID string `json:"disk_id"`
	Epoch  uint64 `json:"epoch"`
}

// Attached is what `attach` prints.
type Attached struct {
	Disk       string `json:"disk"`
	DiskID     string `json:"disk_id"`
	Attachment string `json:"attachment"`
	// Epoch counts the disk's attachments: those of a shared disk that are there at once are one.
	Epoch    uint64  `json:"epoch"`
	Export   string  `json:"export"`
	URI      string  `json:"uri"`
	Device   *string `json:"device"`
	Mount    string  `json:"mount,omitempty"`
	ReadOnly bool    `json:"read_only"`
	// Unclean tells that the attachment before this one had no good end, and that answered writes may be lost with it.
	Unclean  bool     `json:"unclean,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// Detached is what `detach` prints. Left is how many attachments of a shared disk remain.
type Detached struct {
	Disk       string `json:"disk"`
	DiskID     string `json:"disk_id"`
	Attachment string `json:"attachment"`
	Left       int    `json:"left"`
	Clients    int    `json:"clients"`
	// Device and Mount are what its attacher had said; By is who that was.
	Device   *string  `json:"device"`
	Mount    string   `json:"mount,omitempty"`
	By       string   `json:"by"`
	Warnings []string `json:"warnings,omitempty"`
	// Attest is filled where QueryAttest is "true" and the disk had a key.
	Attest *Attest `json:"attest,omitempty"`
}

// Escrow is a disk's keys, for opening its bytes without us. Key is hex: the data key, then the tweak key.
type Escrow struct {
	Cipher     string        `json:"cipher"`
	SectorSize int           `json:"sector_size"`
	Layers     []EscrowLayer `json:"layers"`
}

// EscrowLayer is the key of one layer.
type EscrowLayer struct {
	ID  string `json:"id"`
	Key string `json:"key"`
}

// Check asks what is damaged: one disk, or everything where Disk is empty.
type Check struct {
	Disk string `json:"disk,omitempty"`
}

// Finding is one thing that `check` found. Severity is "damage" (exit 8) or "note".
type Finding struct {
	Severity string `json:"severity"`
	What     string `json:"what"`
	Where    string `json:"where"`
	Problem  string `json:"problem"`
	Next     string `json:"next"`
}

// CheckReport is what `check` prints.
type CheckReport struct {
	// Disks, Points (snapshots, images and backups) and Keys are how many there are, DisksOpen and so on how many of them open, whatever
	// state they are in.
	Disks      int       `json:"disks"`
	DisksOpen  int       `json:"disks_open"`
	Points     int       `json:"points"`
	PointsOpen int       `json:"points_open"`
	Keys       int       `json:"keys"`
	KeysOpen   int       `json:"keys_open"`
	Blocks     int64     `json:"blocks"`
	Findings   []Finding `json:"findings"`
}

// Job is a long piece of work. A call that starts one answers 202 with it; RouteJobShow follows it.
type Job struct {
	ID       string `json:"id"`
	Verb     string `json:"verb"`
	Resource string `json:"resource"`
	Project  string `json:"project"`
	// Request is the id of the call that started the job: the same call sent again gives the same job.
	Request string `json:"request"`
	By      string `json:"by"`
	// Revision counts the news of the job, from 1.
	Revision uint64    `json:"revision"`
	State    string    `json:"state"`
	Done     int64     `json:"done"`
	Total    int64     `json:"total"`
	Unit     string    `json:"unit"`
	Started  time.Time `json:"started"`
	// Result is the answer of a job in state "done"; Error of one in state "failed".
	Result any    `json:"result,omitempty"`
	Error  *Error `json:"error,omitempty"`
}

// Job states.
const (
	JobRunning   = "running"
	JobDone      = "done"
	JobFailed    = "failed"
	JobCancelled = "cancelled"
)

// Error is a refusal as JSON; the body of every answer that is not a success is {"error": Error}. Code is the exit
// code of the CLI contract.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
	Hint    string `json:"hint"`
}

// ErrorBody wraps Error.
type ErrorBody struct {
	Error *Error `json:"error"`
}
