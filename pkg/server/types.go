package server

import (
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/volume"
)

// Status is what a server does, in the words that users see.
type Status string

// The statuses of a server. The catalog keeps Creating, Stopped and Deleting; Starting, Running and Stopping are this run's memory. What is half made or half
// deleted, and nobody works on it any more, is in Error.
const (
	Creating Status = "creating"
	Stopped  Status = "stopped"
	Starting Status = "starting"
	Running  Status = "running"
	Stopping Status = "stopping"
	Deleting Status = "deleting"
	Error    Status = "error"
	// Available: of a scaling configuration or a group, to which nothing is done.
	Available Status = "available"
	// Damaged: its record can't be read.
	Damaged Status = "damaged"
)

// The roles of a server's disks.
const (
	SystemRole = "system"
	DataRole   = "data"
)

// The kinds of network that a server can have.
const (
	NetworkUser = "user"
	NetworkNone = "none"
)

// Limits, and what a server gets where nothing is said.
const (
	MaxDataDisks  = 23
	MaxCPUs       = 256
	MinMemory     = 64 << 20
	DefaultCPUs   = 1
	DefaultMemory = 1 << 30
	MaxMembers    = 100
)

// DiskSpec is a disk that is to be made with a server. Of a system disk the zero Size is the image's, and the zero SectorSize too.
type DiskSpec struct {
	Size       int64
	SectorSize int
	Encrypted  bool
	Key        string // id or alias; empty for the project's default key
}

// Spec is what a new server should be. CPUs, Memory and Network have defaults where they are zero.
type Spec struct {
	Project, Name string
	Image         string
	// System is the system disk. Of an encrypted image it is under the image's key (rule A24): AskedEncrypted, which is nil where the caller left that open, and
	// System.Key are held against the image then, and System.Encrypted is not looked at. Of a plain image System says what it is (rule A25): encrypted, the data
	// is copied. With AsImage the disk is what the image is, and neither System.Encrypted nor System.Key are looked at.
	System         DiskSpec
	AsImage        bool
	AskedEncrypted *bool
	Data           []DiskSpec
	CPUs           int
	Memory         int64
	Network        string
}

// Named is something with its name.
type Named struct {
	ID   uuid.UUID
	Name string
}

// Disk is a disk of a server.
type Disk struct {
	Role, Name string
	ID         uuid.UUID
}

// Server is a server as it is now.
type Server struct {
	ID            uuid.UUID
	Name, Project string
	Status        Status
	CPUs          int
	Memory        int64
	Network       string
	Disks         []Disk // the system disk first
	// Image is what the system disk was made of, as it was called then.
	Image   *volume.Source
	Group   *Named // that it is a member of, nil for none
	Created time.Time
	// Run is nil while no QEMU is known to run.
	Run *RunInfo
	// Paused says why the guest stands still, Failing why a run does not come to its end.
	Paused, Failing string
	// Ended says how the last run ended that this daemon saw.
	Ended string
	// Warnings say what else a person should know.
	Warnings []string
}

// RunInfo tells of a QEMU that runs.
type RunInfo struct {
	By                   string
	UID                  uint32
	PID                  int
	Console, Accelerator string
	Since                time.Time
}

// ConfigSpec is what a new scaling configuration should be: of Server, whose CPUs, memory and network it has where they are zero, or of Image, System and Data.
// AskedEncrypted and System are as in Spec; the system disks of members stand on the image, so that they are what it is.
type ConfigSpec struct {
	Project, Name  string
	Server         string
	Image          string
	System         DiskSpec
	AskedEncrypted *bool
	Data           []DiskSpec
	CPUs           int
	Memory         int64
	Network        string
}

// ConfigDisk is a disk as a scaling configuration has it.
type ConfigDisk struct {
	Role       string
	Size       int64
	SectorSize int
	Encrypted  bool
	Key        *keystore.Info // nil where it is plain
}

// ScalingConfig is a scaling configuration as it is now.
type ScalingConfig struct {
	ID            uuid.UUID
	Name, Project string
	Status        Status
	Image         Named
	// Owned tells that the image was made for it, and goes with it.
	Owned bool
	// Source is the server that it was made of, as it was called then; nil where that was an image.
	Source   *volume.Source
	CPUs     int
	Memory   int64
	Network  string
	Disks    []ConfigDisk // the system disk first
	Created  time.Time
	Warnings []string
}

// GroupSpec is what a new scaling group should be.
type GroupSpec struct {
	Project, Name string
	Config        string
	Min, Max      int
}

// Member is a server of a group.
type Member struct {
	ID     uuid.UUID
	Name   string
	Status Status
}

// Group is a scaling group as it is now.
type Group struct {
	ID            uuid.UUID
	Name, Project string
	Status        Status
	Config        Named
	Min, Max      int
	Members       []Member // the oldest first
	Created       time.Time
	Warnings      []string
}

// Scaled is a group after a scaling, with the names of the servers that were made and deleted.
type Scaled struct {
	Group
	Made, Deleted []string
}
