package control

import (
	"context"
	"time"
)

// Routes of servers and scaling. RouteServerRun turns into a Line: as long as it is there, the server's disks are attached for who called.
const (
	RouteServerCreate = "POST /v1/servers"
	RouteServerList   = "GET /v1/servers"
	RouteServerShow   = "GET /v1/servers/{server}"
	RouteServerRun    = "POST /v1/servers/{server}/run"
	RouteServerStop   = "POST /v1/servers/{server}/stop"
	RouteServerDelete = "DELETE /v1/servers/{server}"
	// The disk of these two is in the body.
	RouteServerAttach = "POST /v1/servers/{server}/disks"
	RouteServerDetach = "POST /v1/servers/{server}/disks/detach"

	RouteConfigCreate = "POST /v1/scaling-configs"
	RouteConfigList   = "GET /v1/scaling-configs"
	RouteConfigShow   = "GET /v1/scaling-configs/{config}"
	RouteConfigDelete = "DELETE /v1/scaling-configs/{config}"
	RouteGroupCreate  = "POST /v1/scaling-groups"
	RouteGroupList    = "GET /v1/scaling-groups"
	RouteGroupShow    = "GET /v1/scaling-groups/{group}"
	RouteGroupScale   = "POST /v1/scaling-groups/{group}/scale"
	RouteGroupDelete  = "DELETE /v1/scaling-groups/{group}"
)

// QueryKeepDisks is "true" where a server's disks are to outlive it.
const QueryKeepDisks = "keep_disks"

// QueryForce is "true" where a group's members are switched off instead of shut down.
const QueryForce = "force"

// The roles of a server's disks.
const (
	SystemDisk = "system"
	DataDisk   = "data"
)

// The kinds of network that a server can have.
const (
	NetworkUser = "user" // QEMU's own, which reaches out and lets nothing in
	NetworkNone = "none"
)

// The statuses of a server.
const (
	ServerCreating = "creating"
	ServerStopped  = "stopped"
	ServerStarting = "starting"
	ServerRunning  = "running"
	ServerStopping = "stopping"
	ServerDeleting = "deleting"
	ServerError    = "error"
)

// NewDisk is a disk that is made with a server. Encrypted is nil where the caller left the choice open; of a system disk Size 0 is the image's.
type NewDisk struct {
	Size       int64  `json:"size,omitempty"`
	SectorSize int    `json:"sector_size,omitempty"`
	Encrypted  *bool  `json:"encrypted,omitempty"`
	Key        string `json:"key,omitempty"`
}

// Machine is what a server has beside disks. Zero values are the defaults.
type Machine struct {
	CPUs    int    `json:"cpus,omitempty"`
	Memory  int64  `json:"memory,omitempty"`
	Network string `json:"network,omitempty"`
}

// ServerCreate asks for a server with a system disk made of an image, and data disks that are empty.
type ServerCreate struct {
	Name   string    `json:"name"`
	Image  string    `json:"image"`
	System NewDisk   `json:"system"`
	Data   []NewDisk `json:"data,omitempty"`
	Machine
}

// ServerDisk is a disk of a server.
type ServerDisk struct {
	Role      string   `json:"role"`
	ID        string   `json:"id"`
	Name      string   `json:"name"`
	Size      int64    `json:"size"`
	Encrypted bool     `json:"encrypted"`
	Key       *DiskKey `json:"key"`
	Status    string   `json:"status"`
}

// Ref names something by id and name.
type Ref struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// Server is what `server show` prints. PID, Console, Accelerator, By and Since are those of the run, while there is one.
type Server struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	Project     string       `json:"project"`
	Status      string       `json:"status"`
	CPUs        int          `json:"cpus"`
	Memory      int64        `json:"memory"`
	Network     string       `json:"network"`
	Image       *DiskSource  `json:"image"`
	Disks       []ServerDisk `json:"disks"`
	Group       *Ref         `json:"group"`
	Created     time.Time    `json:"created"`
	By          string       `json:"by,omitempty"`
	PID         int          `json:"pid,omitempty"`
	Console     string       `json:"console,omitempty"`
	Accelerator string       `json:"accelerator,omitempty"`
	Since       *time.Time   `json:"since"`
	// Ended says how the last run ended that this daemon saw.
	Ended    string   `json:"ended,omitempty"`
	Warnings []string `json:"warnings,omitempty"`
}

// ServerStop says how a server is stopped: who does not shut down within Timeout (Go's syntax) is switched off, with Force at once.
type ServerStop struct {
	Timeout string `json:"timeout,omitempty"`
	Force   bool   `json:"force,omitempty"`
}

// ServerDiskChange names a disk that a server gets or gives away; System makes it the one that it boots from.
type ServerDiskChange struct {
	Disk   string `json:"disk"`
	System bool   `json:"system,omitempty"`
}

// ConfigCreate asks for a scaling configuration, of a server or of an image and what else is named. What of Machine is zero is the server's, or the default.
type ConfigCreate struct {
	Name   string    `json:"name"`
	Server string    `json:"server,omitempty"`
	Image  string    `json:"image,omitempty"`
	System NewDisk   `json:"system"`
	Data   []NewDisk `json:"data,omitempty"`
	Machine
}

// ConfigDisk is a disk as a scaling configuration has it.
type ConfigDisk struct {
	Role       string   `json:"role"`
	Size       int64    `json:"size"`
	SectorSize int      `json:"sector_size"`
	Encrypted  bool     `json:"encrypted"`
	Key        *DiskKey `json:"key"`
}

// ScalingConfig is what `scaling config show` prints.
type ScalingConfig struct {
	ID       string       `json:"id"`
	Name     string       `json:"name"`
	Project  string       `json:"project"`
	Image    Ref          `json:"image"`
	Source   *DiskSource  `json:"source"`
	CPUs     int          `json:"cpus"`
	Memory   int64        `json:"memory"`
	Network  string       `json:"network"`
	Disks    []ConfigDisk `json:"disks"`
	Created  time.Time    `json:"created"`
	Warnings []string     `json:"warnings,omitempty"`
}

// GroupCreate asks for a group of at least Min and at most Max servers.
type GroupCreate struct {
	Name   string `json:"name"`
	Config string `json:"config"`
	Min    int    `json:"min"`
	Max    int    `json:"max"`
}

// GroupScale asks for a group of Size. With Force members that go are switched off instead of shut down.
type GroupScale struct {
	Size  int  `json:"size"`
	Force bool `json:"force,omitempty"`
}

// Member is a server of a group.
type Member struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Status string `json:"status"`
}

// ScalingGroup is what `scaling group show` prints. Made and Deleted name the servers that a scaling made or deleted.
type ScalingGroup struct {
	ID       string    `json:"id"`
	Name     string    `json:"name"`
	Project  string    `json:"project"`
	Config   Ref       `json:"config"`
	Min      int       `json:"min"`
	Max      int       `json:"max"`
	Size     int       `json:"size"`
	Members  []Member  `json:"members"`
	Created  time.Time `json:"created"`
	Made     []string  `json:"made,omitempty"`
	Deleted  []string  `json:"deleted,omitempty"`
	Warnings []string  `json:"warnings,omitempty"`
}

// ServerRun asks for a lease. Token is a secret of the runner's, 32 hexadecimal digits: the exports are called by it, so that a QEMU whose run is over finds none.
// Continues has an entry for each disk of a run whose daemon went: those have to be as it left them.
type ServerRun struct {
	Token     string      `json:"token"`
	Continues []Continues `json:"continues,omitempty"`
}

// RunDisk is a disk that is attached for a run.
type RunDisk struct {
	Role      string `json:"role"`
	DiskID    string `json:"disk_id"`
	Name      string `json:"name"`
	Size      int64  `json:"size"`
	Export    string `json:"export"`
	Socket    string `json:"socket"`
	Epoch     uint64 `json:"epoch"`
	ReadOnly  bool   `json:"read_only,omitempty"`
	BlockSize int    `json:"block_size"`
}

// RunOrder is a line from the daemon to a runner. The first one has Server and Disks, what is to run; the others have an ID, and what to Do.
type RunOrder struct {
	Server *Server   `json:"server,omitempty"`
	Disks  []RunDisk `json:"disks,omitempty"`
	ID     int       `json:"id,omitempty"`
	Do     string    `json:"do,omitempty"`
	// Timeout is how long OrderStop leaves the guest to shut down.
	Timeout string   `json:"timeout,omitempty"`
	Disk    *RunDisk `json:"disk,omitempty"`
	// Bye tells that the daemon stops, and lets go of the disks as they are: the runner asks the next one.
	Bye bool `json:"bye,omitempty"`
}

// What a runner can be told to do. It answers each with a RunReport of the same ID, OrderStop and OrderKill once QEMU has ended.
const (
	OrderStop   = "stop"
	OrderKill   = "kill"
	OrderPlug   = "plug"
	OrderUnplug = "unplug"
)

// RunReport is a line from a runner to the daemon: that the first order has come, upon which the exports open, that QEMU runs, the answer to an order, or how the run
// ended. After Ended it closes the line.
type RunReport struct {
	Taken   bool           `json:"taken,omitempty"`
	Running *RunningServer `json:"running,omitempty"`
	// Left is the id of a disk that the guest gave away after the order to unplug it had timed out.
	Left string `json:"left,omitempty"`
	// Paused says why the guest stands still, such as a full pool; Resumed that it goes on.
	Paused  string `json:"paused,omitempty"`
	Resumed bool   `json:"resumed,omitempty"`
	ID      int    `json:"id,omitempty"`
	Error   *Error `json:"error,omitempty"`
	// Warning of an answer says what the caller should know, such as that the guest had to be switched off.
	Warning string `json:"warning,omitempty"`
	Ended   string `json:"ended,omitempty"`
}

// RunningServer tells of a QEMU that runs.
type RunningServer struct {
	PID         int    `json:"pid"`
	Console     string `json:"console"`
	Accelerator string `json:"accelerator"`
}

// ServerCreate makes a server.
func (c *Client) ServerCreate(ctx context.Context, server ServerCreate) (Server, error) {
	return ask[Server](ctx, c, call{route: RouteServerCreate, body: server})
}

// ServerList lists the project's servers.
func (c *Client) ServerList(ctx context.Context) ([]Server, error) {
	return ask[[]Server](ctx, c, call{route: RouteServerList})
}

// ServerShow tells about one server.
func (c *Client) ServerShow(ctx context.Context, server string) (Server, error) {
	return ask[Server](ctx, c, call{route: RouteServerShow, name: server})
}

// ServerRun leases a server's disks. The first line that arrives is a RunOrder with all that is to run; the disks are detached when the line ends.
func (c *Client) ServerRun(ctx context.Context, server string, how ServerRun) (*Line, error) {
	return c.line(ctx, call{route: RouteServerRun, name: server, body: how})
}

// ServerStop stops a server; yes confirms that disks are detached that can't be attached again.
func (c *Client) ServerStop(ctx context.Context, server string, how ServerStop, yes bool) (Server, error) {
	return ask[Server](ctx, c, call{route: RouteServerStop, name: server, body: how, query: flags(QueryYes, yes)})
}

// ServerDelete deletes a server, and its disks unless keepDisks; yes confirms it.
func (c *Client) ServerDelete(ctx context.Context, server string, keepDisks, yes bool) error {
	return c.do(ctx, call{route: RouteServerDelete, name: server, query: allFlags(map[string]bool{QueryYes: yes, QueryKeepDisks: keepDisks})}, nil)
}

// ServerAttach gives a server a disk, also while it runs.
func (c *Client) ServerAttach(ctx context.Context, server string, disk ServerDiskChange) (Server, error) {
	return ask[Server](ctx, c, call{route: RouteServerAttach, name: server, body: disk})
}

// ServerDetach takes a disk from a server; yes confirms that it can't be attached again.
func (c *Client) ServerDetach(ctx context.Context, server string, disk ServerDiskChange, yes bool) (Server, error) {
	return ask[Server](ctx, c, call{route: RouteServerDetach, name: server, body: disk, query: flags(QueryYes, yes)})
}

// ConfigCreate makes a scaling configuration.
func (c *Client) ConfigCreate(ctx context.Context, config ConfigCreate) (ScalingConfig, error) {
	return ask[ScalingConfig](ctx, c, call{route: RouteConfigCreate, body: config})
}

// ConfigList lists the project's scaling configurations.
func (c *Client) ConfigList(ctx context.Context) ([]ScalingConfig, error) {
	return ask[[]ScalingConfig](ctx, c, call{route: RouteConfigList})
}

// ConfigShow tells about one scaling configuration.
func (c *Client) ConfigShow(ctx context.Context, config string) (ScalingConfig, error) {
	return ask[ScalingConfig](ctx, c, call{route: RouteConfigShow, name: config})
}

// ConfigDelete deletes a scaling configuration, and the image that was made for it; yes confirms it.
func (c *Client) ConfigDelete(ctx context.Context, config string, yes bool) error {
	return c.do(ctx, call{route: RouteConfigDelete, name: config, query: flags(QueryYes, yes)}, nil)
}

// GroupCreate makes a scaling group with its first members.
func (c *Client) GroupCreate(ctx context.Context, group GroupCreate) (ScalingGroup, error) {
	return ask[ScalingGroup](ctx, c, call{route: RouteGroupCreate, body: group})
}

// GroupList lists the project's scaling groups.
func (c *Client) GroupList(ctx context.Context) ([]ScalingGroup, error) {
	return ask[[]ScalingGroup](ctx, c, call{route: RouteGroupList})
}

// GroupShow tells about one scaling group.
func (c *Client) GroupShow(ctx context.Context, group string) (ScalingGroup, error) {
	return ask[ScalingGroup](ctx, c, call{route: RouteGroupShow, name: group})
}

// GroupScale has a group have to.Size members; yes confirms that members are stopped and deleted.
func (c *Client) GroupScale(ctx context.Context, group string, to GroupScale, yes bool) (ScalingGroup, error) {
	return ask[ScalingGroup](ctx, c, call{route: RouteGroupScale, name: group, body: to, query: flags(QueryYes, yes)})
}

// GroupDelete deletes a group with its members, which force switches off instead of shutting them down; yes confirms it.
func (c *Client) GroupDelete(ctx context.Context, group string, force, yes bool) error {
	return c.do(ctx, call{route: RouteGroupDelete, name: group, query: allFlags(map[string]bool{QueryYes: yes, QueryForce: force})}, nil)
}
