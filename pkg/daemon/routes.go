package daemon

import (
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
)

// route is one call: what access is asked, what the audit calls it, and who does it.
type route struct {
	pattern string
	action  access.Action
	verb    string // empty only for following a job, which is part of the verb that started it
	how     manner
	do      func(*Daemon, *call) (any, error)
}

// manner is how a call is answered.
type manner uint

const (
	// changes: sent again with the same id, it gets the same answer.
	changes manner = 1 << iota
	// job: it answers 202 and a job.
	job
	// closed: it is answered before the root key was ever open, too, when there is no catalog and no log.
	closed
	// passphrase: a passphrase follows it, which nothing may keep for a repetition.
	passphrase
	// quiet: only its refusals are recorded. It is asked every few seconds, and an audit record is a sync.
	quiet
)

func (r route) is(m manner) bool { return r.how&m != 0 }

// routes is the whole control API.
var routes = []route{
	{control.RouteStatus, access.StatusShow, "status", closed, (*Daemon).status},
	{control.RouteMetrics, access.MetricsShow, "metrics", closed | quiet, (*Daemon).metrics},
	{control.RouteGrantCreate, access.GrantCreate, "grant create", changes, (*Daemon).grantCreate},
	{control.RouteGrantList, access.GrantList, "grant list", 0, (*Daemon).grantList},
	{control.RouteGrantRevoke, access.GrantRevoke, "grant revoke", changes, (*Daemon).grantRevoke},
	{control.RouteKeyCreate, access.KeyCreate, "key create", changes, (*Daemon).keyCreate},
	{control.RouteKeyList, access.KeyList, "key list", 0, (*Daemon).keyList},
	{control.RouteKeyShow, access.KeyShow, "key show", 0, (*Daemon).keyShow},
	{control.RouteKeyEnable, access.KeyEnable, "key enable", changes, (*Daemon).keyEnable},
	{control.RouteKeyDisable, access.KeyDisable, "key disable", changes, (*Daemon).keyDisable},
	{control.RouteDiskCreate, access.DiskCreate, "disk create", changes, (*Daemon).diskCreate},
	{control.RouteDiskList, access.DiskList, "disk list", 0, (*Daemon).diskList},
	{control.RouteDiskShow, access.DiskShow, "disk show", 0, (*Daemon).diskShow},
	{control.RouteDiskExtend, access.DiskExtend, "disk extend", changes, (*Daemon).diskExtend},
	{control.RouteDiskDelete, access.DiskDelete, "disk delete", changes, (*Daemon).diskDelete},
	// The answer of escrow is a key, which nothing may keep for a repetition.
	{control.RouteDiskEscrow, access.DiskEscrow, "disk escrow", 0, (*Daemon).diskEscrow},
	{control.RouteAttach, access.DiskAttach, "attach", changes, (*Daemon).attachCall},
	{control.RouteDetach, access.DiskDetach, "detach", changes, (*Daemon).detachCall},
	{control.RouteCheck, access.CheckRun, "check", changes | job, (*Daemon).check},
	{control.RouteRootUnlock, access.RootUnlock, "root unlock", changes | closed, (*Daemon).rootUnlock},
	{control.RouteRootPassphrase, access.RootUnlock, "root unlock", closed | passphrase, (*Daemon).rootPassphrase},
	{control.RouteRootLock, access.RootLock, "root lock", changes | closed, (*Daemon).rootLock},
	{control.RouteSlotList, access.SlotList, "root slot list", closed, (*Daemon).slotList},
	{control.RouteSlotAdd, access.SlotAdd, "root slot add", passphrase, (*Daemon).slotAdd},
	{control.RouteSlotRemove, access.SlotRemove, "root slot remove", changes, (*Daemon).slotRemove},
	{control.RouteJobList, access.JobList, "job list", 0, (*Daemon).jobList},
	{control.RouteJobShow, access.JobShow, "", 0, (*Daemon).jobShow},
	{control.RouteJobCancel, access.JobCancel, "job cancel", changes, (*Daemon).jobCancel},
}
