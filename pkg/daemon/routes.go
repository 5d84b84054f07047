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
	changes bool   // sent again with the same id, it gets the same answer
	job     bool   // it answers 202 and a job
	do      func(*Daemon, *call) (any, error)
}

// routes is the whole control API.
var routes = []route{
	{control.RouteStatus, access.StatusShow, "status", false, false, (*Daemon).status},
	{control.RouteGrantCreate, access.GrantCreate, "grant create", true, false, (*Daemon).grantCreate},
	{control.RouteGrantList, access.GrantList, "grant list", false, false, (*Daemon).grantList},
	{control.RouteGrantRevoke, access.GrantRevoke, "grant revoke", true, false, (*Daemon).grantRevoke},
	{control.RouteKeyCreate, access.KeyCreate, "key create", true, false, (*Daemon).keyCreate},
	{control.RouteKeyList, access.KeyList, "key list", false, false, (*Daemon).keyList},
	{control.RouteKeyShow, access.KeyShow, "key show", false, false, (*Daemon).keyShow},
	{control.RouteKeyEnable, access.KeyEnable, "key enable", true, false, (*Daemon).keyEnable},
	{control.RouteKeyDisable, access.KeyDisable, "key disable", true, false, (*Daemon).keyDisable},
	{control.RouteDiskCreate, access.DiskCreate, "disk create", true, false, (*Daemon).diskCreate},
	{control.RouteDiskList, access.DiskList, "disk list", false, false, (*Daemon).diskList},
	{control.RouteDiskShow, access.DiskShow, "disk show", false, false, (*Daemon).diskShow},
	{control.RouteDiskExtend, access.DiskExtend, "disk extend", true, false, (*Daemon).diskExtend},
	{control.RouteDiskDelete, access.DiskDelete, "disk delete", true, false, (*Daemon).diskDelete},
	// The answer of escrow is a key, which nothing may keep for a repetition.
	{control.RouteDiskEscrow, access.DiskEscrow, "disk escrow", false, false, (*Daemon).diskEscrow},
	{control.RouteAttach, access.DiskAttach, "attach", true, false, (*Daemon).attachCall},
	{control.RouteDetach, access.DiskDetach, "detach", true, false, (*Daemon).detachCall},
	{control.RouteCheck, access.CheckRun, "check", true, true, (*Daemon).check},
	{control.RouteJobList, access.JobList, "job list", false, false, (*Daemon).jobList},
	{control.RouteJobShow, access.JobShow, "", false, false, (*Daemon).jobShow},
	{control.RouteJobCancel, access.JobCancel, "job cancel", true, false, (*Daemon).jobCancel},
}
