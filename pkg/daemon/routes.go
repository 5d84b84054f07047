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
	// makes: it puts something into a project, which must not be deleted meanwhile.
	makes
	// upload: what comes with it is not JSON, and is read by the verb as it arrives (control.Upload). Its arguments are in the query. It can't
	// be one that changes: nobody can send it again.
	upload
	// quiet: only its refusals are recorded. It is asked every few seconds, and an audit record is a sync.
	quiet
)

func (r route) is(m manner) bool { return r.how&m != 0 }

// uploadPatterns are the patterns of the routes that an upload comes with.
func uploadPatterns() map[string]bool {
	patterns := map[string]bool{}
	for _, r := range routes {
		if r.is(upload) {
			patterns[r.pattern] = true
		}
	}
	return patterns
}

// routes is the whole control API.
var routes = []route{
	{control.RouteStatus, access.StatusShow, "status", closed, (*Daemon).status},
	{control.RouteMetrics, access.MetricsShow, "metrics", closed | quiet, (*Daemon).metrics},
	{control.RouteGrantCreate, access.GrantCreate, "grant create", changes | makes, (*Daemon).grantCreate},
	{control.RouteGrantList, access.GrantList, "grant list", 0, (*Daemon).grantList},
	{control.RouteGrantRevoke, access.GrantRevoke, "grant revoke", changes, (*Daemon).grantRevoke},
	{control.RouteKeyCreate, access.KeyCreate, "key create", changes | makes, (*Daemon).keyCreate},
	{control.RouteKeyList, access.KeyList, "key list", 0, (*Daemon).keyList},
	{control.RouteKeyShow, access.KeyShow, "key show", 0, (*Daemon).keyShow},
	{control.RouteKeyEnable, access.KeyEnable, "key enable", changes, (*Daemon).keyEnable},
	{control.RouteKeyDisable, access.KeyDisable, "key disable", changes, (*Daemon).keyDisable},
	{control.RouteKeyUpdate, access.KeyUpdate, "key update", changes, (*Daemon).keyUpdate},
	{control.RouteKeySchedule, access.KeyScheduleDeletion, "key schedule-deletion", changes, (*Daemon).keySchedule},
	{control.RouteKeyCancel, access.KeyCancelDeletion, "key cancel-deletion", changes, (*Daemon).keyCancel},
	{control.RouteKeyDelete, access.KeyDelete, "key delete", changes, (*Daemon).keyDelete},
	{control.RouteKeyUses, access.KeyUses, "key uses", 0, (*Daemon).keyUses},
	{control.RouteKeyPredict, access.KeyPredict, "key dry-run", 0, (*Daemon).keyPredict},
	{control.RouteKeyRotate, access.KeyRotate, "key rotate", changes, (*Daemon).keyRotate},
	{control.RouteKeyRotation, access.KeySetRotation, "key rotation", changes, (*Daemon).keyRotation},
	{control.RouteKeyRewrap, access.KeyRewrap, "key rewrap", changes | job, (*Daemon).keyRewrap},
	{control.RouteKeyPrepare, access.KeyPrepareImport, "key import prepare", changes, (*Daemon).keyPrepare},
	{control.RouteKeyImport, access.KeyImport, "key import", changes, (*Daemon).keyImport},
	{control.RouteKeyDeleteMaterial, access.KeyDeleteMaterial, "key delete-material", changes, (*Daemon).keyDeleteMaterial},
	{control.RouteClockShow, access.ClockShow, "clock show", 0, (*Daemon).clockShow},
	{control.RouteClockAccept, access.ClockAccept, "clock accept", changes, (*Daemon).clockAccept},
	{control.RouteDiskCreate, access.DiskCreate, "disk create", changes | makes, (*Daemon).diskCreate},
	{control.RouteDiskList, access.DiskList, "disk list", 0, (*Daemon).diskList},
	{control.RouteDiskShow, access.DiskShow, "disk show", 0, (*Daemon).diskShow},
	{control.RouteDiskExtend, access.DiskExtend, "disk extend", changes, (*Daemon).diskExtend},
	{control.RouteDiskRewrap, access.DiskRewrap, "disk rewrap", changes, (*Daemon).diskRewrap},
	{control.RouteDiskRekey, access.DiskRekey, "disk rekey", changes | job, (*Daemon).diskRekey},
	{control.RouteDiskDelete, access.DiskDelete, "disk delete", changes, (*Daemon).diskDelete},
	// The answer of escrow is a key, which nothing may keep for a repetition.
	{control.RouteDiskEscrow, access.DiskEscrow, "disk escrow", 0, (*Daemon).diskEscrow},
	{control.RouteDiskExport, access.DiskExport, "disk export", 0, (*Daemon).diskExport},
	{control.RouteBackupCreate, access.BackupCreate, "backup create", changes | makes | job, (*Daemon).backupCreate},
	{control.RouteBackupList, access.BackupList, "backup list", 0, (*Daemon).backupList},
	{control.RouteBackupShow, access.BackupShow, "backup show", 0, (*Daemon).backupShow},
	{control.RouteBackupVerify, access.BackupVerify, "backup verify", changes | job, (*Daemon).backupVerify},
	{control.RouteBackupExport, access.BackupExport, "backup export", 0, (*Daemon).backupExport},
	{control.RouteBackupOffer, access.BackupOffer, "backup offer", 0, (*Daemon).backupOffer},
	{control.RouteBackupImport, access.BackupImport, "backup import", upload | job, (*Daemon).backupImport},
	{control.RouteBackupDelete, access.BackupDelete, "backup delete", changes, (*Daemon).backupDelete},
	{control.RouteBackupPrune, access.BackupPrune, "backup prune", changes, (*Daemon).backupPrune},
	{control.RouteBackupKey, access.BackupKeyShow, "backup key", changes, (*Daemon).backupKey},
	{control.RouteAttach, access.DiskAttach, "attach", changes, (*Daemon).attachCall},
	{control.RouteDetach, access.DiskDetach, "detach", changes, (*Daemon).detachCall},
	{control.RouteSnapshotCreate, access.SnapshotCreate, "snapshot create", changes | makes, (*Daemon).snapshotCreate},
	{control.RouteSnapshotList, access.SnapshotList, "snapshot list", 0, (*Daemon).snapshotList},
	{control.RouteSnapshotShow, access.SnapshotShow, "snapshot show", 0, (*Daemon).snapshotShow},
	{control.RouteDiskRollback, access.DiskRollback, "snapshot rollback", changes, (*Daemon).diskRollback},
	{control.RouteSnapshotDelete, access.SnapshotDelete, "snapshot delete", changes | job, (*Daemon).snapshotDelete},
	{control.RouteImageCreate, access.ImageCreate, "image create", changes | makes, (*Daemon).imageCreate},
	{control.RouteImageUpload, access.ImageCreate, "image create", upload | makes, (*Daemon).imageUpload},
	{control.RouteImageCopy, access.ImageCopy, "image copy", changes | job, (*Daemon).imageCopy},
	{control.RouteImageList, access.ImageList, "image list", 0, (*Daemon).imageList},
	{control.RouteImageShow, access.ImageShow, "image show", 0, (*Daemon).imageShow},
	{control.RouteImageDelete, access.ImageDelete, "image delete", changes, (*Daemon).imageDelete},
	{control.RouteServerCreate, access.ServerCreate, "server create", changes | makes, (*Daemon).serverCreate},
	{control.RouteServerList, access.ServerList, "server list", 0, (*Daemon).serverList},
	{control.RouteServerShow, access.ServerShow, "server show", 0, (*Daemon).serverShow},
	// Its answer is a line, which lasts as long as the run: nothing may keep it for a repetition.
	{control.RouteServerRun, access.ServerStart, "server start", 0, (*Daemon).serverRun},
	{control.RouteServerStop, access.ServerStop, "server stop", changes, (*Daemon).serverStop},
	{control.RouteServerDelete, access.ServerDelete, "server delete", changes, (*Daemon).serverDelete},
	{control.RouteServerAttach, access.ServerAttach, "server attach", changes, (*Daemon).serverAttach},
	{control.RouteServerDetach, access.ServerDetach, "server detach", changes, (*Daemon).serverDetach},
	{control.RouteConfigCreate, access.ConfigCreate, "scaling config create", changes | makes, (*Daemon).configCreate},
	{control.RouteConfigList, access.ConfigList, "scaling config list", 0, (*Daemon).configList},
	{control.RouteConfigShow, access.ConfigShow, "scaling config show", 0, (*Daemon).configShow},
	{control.RouteConfigDelete, access.ConfigDelete, "scaling config delete", changes, (*Daemon).configDelete},
	{control.RouteGroupCreate, access.GroupCreate, "scaling group create", changes | makes | job, (*Daemon).groupCreate},
	{control.RouteGroupList, access.GroupList, "scaling group list", 0, (*Daemon).groupList},
	{control.RouteGroupShow, access.GroupShow, "scaling group show", 0, (*Daemon).groupShow},
	{control.RouteGroupScale, access.GroupScale, "scaling group scale", changes | job, (*Daemon).groupScale},
	{control.RouteGroupDelete, access.GroupDelete, "scaling group delete", changes | job, (*Daemon).groupDelete},
	{control.RouteCheck, access.CheckRun, "check", changes | job, (*Daemon).check},
	{control.RouteRootUnlock, access.RootUnlock, "root unlock", changes | closed, (*Daemon).rootUnlock},
	{control.RouteRootPassphrase, access.RootUnlock, "root unlock", closed | passphrase, (*Daemon).rootPassphrase},
	{control.RouteRootLock, access.RootLock, "root lock", changes | closed, (*Daemon).rootLock},
	{control.RouteSlotList, access.SlotList, "root slot list", closed, (*Daemon).slotList},
	{control.RouteSlotAdd, access.SlotAdd, "root slot add", passphrase, (*Daemon).slotAdd},
	{control.RouteSlotKeyFile, access.SlotAdd, "root slot add", changes, (*Daemon).slotKeyFile},
	{control.RouteSlotTPM, access.SlotAdd, "root slot add", changes, (*Daemon).slotTPM},
	{control.RouteSlotToken, access.SlotAdd, "root slot add", changes, (*Daemon).slotToken},
	// The answers of these two are secrets, which nothing may keep for a repetition.
	{control.RouteSlotCredential, access.SlotAdd, "root slot add", 0, (*Daemon).slotCredential},
	{control.RouteRecoveryCreate, access.RecoveryCreate, "root recovery create", 0, (*Daemon).recoveryCreate},
	{control.RouteSlotGive, access.SlotAdd, "root slot add", passphrase, (*Daemon).slotGive},
	{control.RouteSlotReseal, access.SlotReseal, "root slot reseal", changes, (*Daemon).slotReseal},
	{control.RouteSlotRemove, access.SlotRemove, "root slot remove", changes, (*Daemon).slotRemove},
	{control.RouteRecoveryOpen, access.RecoveryOpen, "root recovery open", closed | passphrase, (*Daemon).recoveryOpen},
	{control.RouteRecoveryVerify, access.RecoveryVerify, "root recovery verify", closed | passphrase, (*Daemon).recoveryVerify},
	{control.RouteRoleGrant, access.RoleGrant, "role grant", changes | makes, (*Daemon).roleGrant},
	{control.RouteRoleList, access.RoleList, "role list", 0, (*Daemon).roleList},
	{control.RouteRoleRevoke, access.RoleRevoke, "role revoke", changes, (*Daemon).roleRevoke},
	{control.RouteProjectCreate, access.ProjectCreate, "project create", changes, (*Daemon).projectCreate},
	{control.RouteProjectList, access.ProjectList, "project list", 0, (*Daemon).projectList},
	{control.RouteProjectShow, access.ProjectShow, "project show", 0, (*Daemon).projectShow},
	{control.RouteProjectSet, access.ProjectSet, "project set", changes | makes, (*Daemon).projectSet},
	{control.RouteProjectDelete, access.ProjectDelete, "project delete", changes, (*Daemon).projectDelete},
	{control.RouteKeyGrant, access.KeyGrantCreate, "key grant", changes, (*Daemon).keyGrant},
	{control.RouteKeyGrants, access.KeyGrantList, "key grants", 0, (*Daemon).keyGrantList},
	{control.RouteKeyGrantRevoke, access.KeyGrantRevoke, "key revoke", changes, (*Daemon).keyGrantRevoke},
	{control.RouteKeyGrantRetire, access.KeyGrantRetire, "key retire", changes, (*Daemon).keyGrantRetire},
	{control.RouteAuditList, access.AuditList, "audit list", 0, (*Daemon).auditList},
	{control.RouteAuditVerify, access.AuditVerify, "audit verify", changes | job, (*Daemon).auditVerify},
	{control.RouteAuditHead, access.AuditHead, "audit head", 0, (*Daemon).auditHead},
	{control.RouteJobList, access.JobList, "job list", 0, (*Daemon).jobList},
	{control.RouteJobShow, access.JobShow, "", 0, (*Daemon).jobShow},
	{control.RouteJobCancel, access.JobCancel, "job cancel", changes, (*Daemon).jobCancel},
}
