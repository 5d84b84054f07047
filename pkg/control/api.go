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

// Routes, as net/http patterns. {disk}, {key} and {slot} are ids or names; an alias with slashes is path-escaped.
const (
	RouteStatus = "GET /v1/status"
	// RouteMetrics is where Prometheus looks, and answers in its format.
	RouteMetrics     = "GET /metrics"
	RouteGrantCreate = "POST /v1/grants"
	RouteGrantList   = "GET /v1/grants"
	RouteGrantRevoke = "DELETE /v1/grants"
	RouteKeyCreate   = "POST /v1/keys"
	RouteKeyList     = "GET /v1/keys"
	RouteKeyShow     = "GET /v1/keys/{key}"
	RouteKeyEnable   = "POST /v1/keys/{key}/enable"
	RouteKeyDisable  = "POST /v1/keys/{key}/disable"
	RouteDiskCreate  = "POST /v1/disks"
	RouteDiskList    = "GET /v1/disks"
	RouteDiskShow    = "GET /v1/disks/{disk}"
	RouteDiskExtend  = "POST /v1/disks/{disk}/extend"
	RouteDiskDelete  = "DELETE /v1/disks/{disk}"
	RouteDiskEscrow  = "POST /v1/disks/{disk}/escrow"
	RouteAttach      = "POST /v1/disks/{disk}/attach"
	RouteDetach      = "POST /v1/disks/{disk}/detach"
	RouteCheck       = "POST /v1/check"
	RouteRootUnlock  = "POST /v1/root/unlock"
	// RouteRootPassphrase and RouteSlotAdd are followed by a passphrase (see Asker).
	RouteRootPassphrase = "POST /v1/root/unlock/passphrase"
	RouteRootLock       = "POST /v1/root/lock"
	RouteSlotList       = "GET /v1/root/slots"
	RouteSlotAdd        = "POST /v1/root/slots/passphrase"
	RouteSlotRemove     = "DELETE /v1/root/slots/{slot}"
	RouteJobList        = "GET /v1/jobs"
	RouteJobShow        = "GET /v1/jobs/{job}"
	RouteJobCancel      = "DELETE /v1/jobs/{job}"
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
}

// KeyCreate asks for a new CMK.
type KeyCreate struct {
	Alias string `json:"alias"`
}

// DiskCreate asks for a new disk. Encrypted is nil where the caller left the choice open.
type DiskCreate struct {
	Name       string `json:"name"`
	Size       int64  `json:"size"`
	Encrypted  *bool  `json:"encrypted,omitempty"`
	Key        string `json:"key,omitempty"`
	SectorSize int    `json:"sector_size,omitempty"`
	HideHoles  bool   `json:"hide_holes,omitempty"`
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
	Status      string       `json:"status"`
	Source      *DiskSource  `json:"source"`
	Created     time.Time    `json:"created"`
	Layers      []DiskLayer  `json:"layers"`
	Attachments []Attachment `json:"attachments"`
	// Warnings say what a person should know after this call: more size than free space, or a flush that failed.
	Warnings []string `json:"warnings,omitempty"`
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

// Attachment is one attachment of a disk.
type Attachment struct {
	URI      string    `json:"uri"`
	Device   *string   `json:"device"`
	Since    time.Time `json:"since"`
	ReadOnly bool      `json:"read_only"`
	By       string    `json:"by"`
	Allow    []string  `json:"allow"`
	Clients  int       `json:"clients"`
}

// DiskExtend asks for a new, larger size.
type DiskExtend struct {
	Size int64 `json:"size"`
}

// Attach asks for a disk to be made readable.
type Attach struct {
	ReadOnly bool     `json:"read_only,omitempty"`
	Allow    []string `json:"allow,omitempty"`
}

// Attached is what `attach` prints.
type Attached struct {
	Disk     string   `json:"disk"`
	Export   string   `json:"export"`
	URI      string   `json:"uri"`
	Device   *string  `json:"device"`
	ReadOnly bool     `json:"read_only"`
	Warnings []string `json:"warnings,omitempty"`
}

// Detached is what `detach` prints.
type Detached struct {
	Disk     string   `json:"disk"`
	Clients  int      `json:"clients"`
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
	Disks    int       `json:"disks"`
	Keys     int       `json:"keys"`
	Blocks   int64     `json:"blocks"`
	Findings []Finding `json:"findings"`
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
