package daemon

import (
	"context"
	"time"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/refusal"
)

// Events that somebody should hear of without having asked.
const (
	eventUnwrapRefused   = "unwrap-refused"
	eventDeletionDue     = "deletion-due"
	eventKeyDeleted      = "key-deleted"
	eventKeyRotated      = "key-rotated"
	eventMaterialExpired = "material-expired"
	eventPoolFilling     = "pool-filling"
	eventServerPaused    = "server-paused"
)

// event is something that happened, mostly to a key, as the hook reads it.
type event struct {
	// Event is one of the words above.
	Event   string    `json:"event"`
	Time    time.Time `json:"time"`
	Region  string    `json:"region"`
	Project string    `json:"project"`
	// Key is the alias, KeyID the id of the CMK that it is about; Resource what was refused for it, where something was.
	Key      string `json:"key"`
	KeyID    string `json:"key_id"`
	Resource string `json:"resource"`
	// User is who was refused.
	User    string `json:"user,omitempty"`
	Message string `json:"message"`

	// denied: rights forbade it.
	denied bool
}

// notify tells of an event.
func (d *Daemon) notify(e event) {
	e.Time, e.Region = d.o.Clock.Now(), d.o.Region
	d.o.Log.Warn(e.Message, "event", e.Event, "project", e.Project, "key", e.Key, "key_id", e.KeyID, "resource", e.Resource)
	if d.hook != nil {
		d.hook.tell(e)
	}
}

// unwraps are the actions for which a key has to open something, or wrap something anew: who is refused them might be an attacker, or
// somebody whose data is about to be lost.
var unwraps = map[access.Action]bool{access.DiskAttach: true, access.DiskEscrow: true, access.DiskExport: true, access.DiskCreate: true,
	access.DiskRewrap: true, access.ServerStart: true, access.ServerAttach: true}

// tellRefused tells of an unwrap that the key forbade, or rights.
func (d *Daemon) tellRefused(r route, c *call, err error) {
	code := refusal.CodeOf(err)
	if !unwraps[r.action] || code != refusal.KeyForbids && code != refusal.Denied {
		return
	}
	d.refusedUnwraps.Add(1)
	e := event{Event: eventUnwrapRefused, Project: c.project, Resource: c.resource(), User: c.caller.User, Message: refusal.From(err).Message,
		denied: code == refusal.Denied}
	e.Key, e.KeyID = d.keyOfRefused(c)
	c.keyID = e.KeyID
	d.notify(e)
}

// keyOfRefused is the CMK that a refused call was about, as far as it can be told.
func (d *Daemon) keyOfRefused(c *call) (alias, id string) {
	ctx := context.WithoutCancel(c.ctx)
	if c.disk() != "" {
		if v, err := d.volumes.Get(ctx, c.project, c.disk()); err == nil && v.Key != nil {
			return v.Key.Alias, v.Key.ID
		}
		return "", ""
	}
	if k, err := d.keys.KeyOf(ctx, c.project, c.keyID); err == nil {
		return k.Alias, k.ID
	}
	return "", c.keyID
}
