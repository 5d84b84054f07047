package daemon

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

// tokenLength is that of the secret which a run's exports are called by.
const tokenLength = 32

// serverRun attaches all disks of a server for who runs it, or none, and answers with a line. As long as that is there they stay attached. What comes of it
// after the answer to the call is the lease's matter.
func (d *Daemon) serverRun(c *call) (any, error) {
	var in control.ServerRun
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	from, err := runOf(in)
	if err != nil {
		return nil, err
	}
	if err := d.leases.admit(c.caller.UID); err != nil {
		return nil, err
	}
	if !d.leases.begin() {
		d.leases.leave(c.caller.UID)
		return nil, errStopping()
	}
	l, err := d.newLease(c, in.Token, from)
	if err != nil {
		d.leases.rest()
		d.leases.leave(c.caller.UID)
		return nil, err
	}
	return l, nil
}

// runOf reads which disks a run had before, by their ids; nil for a run that begins.
func runOf(in control.ServerRun) (map[uuid.UUID]*volume.Continues, error) {
	if len(in.Token) != tokenLength || strings.Trim(in.Token, "0123456789abcdef") != "" {
		return nil, refusal.New(refusal.Usage, "draw one for each run", "a run's token is %d hexadecimal digits", tokenLength)
	}
	if len(in.Continues) == 0 {
		return nil, nil
	}
	from := map[uuid.UUID]*volume.Continues{}
	run := fmt.Sprintf("%x", sha256.Sum256([]byte(in.Token))) // the token opens exports
	for _, one := range in.Continues {
		at, err := continues(&one)
		if err != nil {
			return nil, err
		}
		if from[at.Disk] != nil {
			return nil, refusal.New(refusal.Usage, "name each disk once", "disk %s is named twice", at.Disk)
		}
		at.Run = run
		from[at.Disk] = at
	}
	return from, nil
}

// newLease begins a run, and attaches its disks without opening any to anybody. Where it fails it is as if nobody had come.
func (d *Daemon) newLease(c *call, token string, from map[uuid.UUID]*volume.Continues) (*lease, error) {
	ctx := context.WithoutCancel(c.ctx)
	run, err := d.servers.Begin(ctx, c.project, c.server())
	if err != nil {
		return nil, err
	}
	l := newLease(d, c, run, token)
	d.leases.add(l)
	err = l.attachAll(c, from)
	if err == nil {
		return l, nil
	}
	err = explainStart(l.server.Name, err)
	if undone := l.release(); undone != nil {
		d.o.Log.Error("the start of a server is not taken back whole yet", "server", l.server.Name, "err", undone)
		go l.end(err.Error())
		return nil, err
	}
	l.close("")
	return nil, err
}

// explainStart says which server does not start.
func explainStart(name string, err error) error {
	r := refusal.From(err)
	return refusal.New(r.Code, r.Hint, "server %s can't start: %w", name, err)
}

// attachAll attaches the disks of a run: all that the server has, or those that the run had before.
func (l *lease) attachAll(c *call, from map[uuid.UUID]*volume.Continues) error {
	if err := l.d.leases.mayGoOn(l, from == nil); err != nil {
		return err
	}
	disks, err := l.toAttach(from)
	if err != nil {
		return err
	}
	if err := roomForDisks(len(disks)); err != nil {
		return err
	}
	if err := l.precheck(c, disks); err != nil {
		return err
	}
	for _, disk := range disks {
		if _, err := l.attach(c, "server start", disk, from[disk.ID]); err != nil {
			return err
		}
	}
	return nil
}

// toAttach are the disks of the run. One that goes on has those that it had, which are still the server's; what the server got meanwhile waits for the next.
func (l *lease) toAttach(from map[uuid.UUID]*volume.Continues) ([]server.Disk, error) {
	if from == nil {
		return l.server.Disks, nil
	}
	var disks []server.Disk
	for _, disk := range l.server.Disks {
		switch {
		case from[disk.ID] != nil:
			disks = append(disks, disk)
		case disk.Role == server.SystemRole:
			return nil, otherDisks()
		default:
			l.warn("disk " + disk.Name + " is the server's, and its run has not got it: it is there from the next start on")
		}
	}
	if len(disks) != len(from) {
		return nil, otherDisks()
	}
	return disks, nil
}

func otherDisks() error {
	return refusal.New(refusal.Damaged, "switch it off, and start it anew", "it has other disks now than its run had")
}

// precheck refuses what can be known before anything is attached: of all disks, so that a person hears of each key at once.
func (l *lease) precheck(c *call, disks []server.Disk) error {
	var first *refusal.Error
	var said []string
	for _, disk := range disks {
		v, err := l.d.volumes.Get(context.WithoutCancel(c.ctx), l.c.project, disk.ID.String())
		if err != nil {
			return err
		}
		if v.Shared {
			return refusal.New(refusal.Busy, "take it from the server with `nbdcrypt server detach`", "disk %s is shared, which no server's disk can be", v.Name)
		}
		if v.Key == nil {
			continue
		}
		if r := refusal.From(v.Key.May(keystore.Use)); r != nil {
			if first == nil {
				first, c.keyID = r, v.Key.ID
			}
			said = append(said, fmt.Sprintf("disk %s: %s", v.Name, r.Message))
		}
	}
	if first == nil {
		return nil
	}
	return refusal.New(first.Code, first.Hint, "%s", strings.Join(said, "; "))
}

// attach attaches a disk for the run, whose export nobody can open yet. The key's release has a record of its own, beside that of the call's verb.
func (l *lease) attach(c *call, verb string, disk server.Disk, from *volume.Continues) (*leased, error) {
	one := *c
	one.request = newRequest()
	a, err := l.d.volumes.Attach(context.WithoutCancel(c.ctx), one.request, volume.AttachSpec{Project: l.c.project, Disk: disk.ID.String(), By: l.c.caller.User, Continues: from,
		Released: func(id string, key *keystore.KeyVersionRef) error {
			if key == nil {
				return nil
			}
			one.keyID = key.ID
			return l.d.recordRelease(&one, verb, id, key.String())
		},
		Wiping: (&wipe{daemon: l.d, call: &one}).wiping})
	if err != nil {
		return nil, err
	}
	at := &leased{a: a, role: disk.Role}
	l.add(at)
	for _, warning := range a.Warnings {
		l.warn("disk " + a.Name + ": " + warning)
	}
	return at, nil
}
