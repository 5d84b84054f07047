package daemon

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

const (
	// maxLeases is how many runs of servers there are at a time, and maxUserLeases how many of them one user has who is not root: each is a connection.
	maxLeases     = 512
	maxUserLeases = 64
)

// leases are the runs of servers whose disks are attached for somebody.
type leases struct {
	mu    sync.Mutex
	all   map[uuid.UUID]*lease // by server
	disks map[uuid.UUID]*lease // by disk that is attached for it
	users map[uint32]int
	// cutOff are the tokens of runs that were ended by force while their runners did not answer, by server: none of those goes on.
	cutOff map[uuid.UUID]string
	// working counts what attaches or detaches disks of a run right now. The daemon's stop waits for it, and for nothing else of a lease.
	working  int
	rested   *sync.Cond
	stopping bool
}

func newLeases() *leases {
	ls := &leases{all: map[uuid.UUID]*lease{}, disks: map[uuid.UUID]*lease{}, users: map[uint32]int{}, cutOff: map[uuid.UUID]string{}}
	ls.rested = sync.NewCond(&ls.mu)
	return ls
}

// admit tells whether there is room for one more run of a user, until leave.
func (ls *leases) admit(uid uint32) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	total := 0
	for _, n := range ls.users {
		total += n
	}
	if uid != 0 && (ls.users[uid] >= maxUserLeases || total >= maxLeases) {
		return refusal.New(refusal.Busy, "stop a server first", "%d of your servers run, and %d of everybody's: no more can", ls.users[uid], total)
	}
	ls.users[uid]++
	return nil
}

func (ls *leases) leave(uid uint32) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.users[uid]--; ls.users[uid] == 0 {
		delete(ls.users, uid)
	}
}

// begin begins with work on the disks of a run. Not ok: the daemon stops, and sees to all disks itself.
func (ls *leases) begin() (ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.stopping {
		return false
	}
	ls.working++
	return true
}

// rest ends that.
func (ls *leases) rest() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.working--
	ls.rested.Broadcast()
}

// hold has a run hold its disks from now on: the work on them that began is done. Not ok: the daemon stops.
func (ls *leases) hold(l *lease) (ok bool) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.stopping {
		return false
	}
	l.open()
	ls.working--
	ls.rested.Broadcast()
	return true
}

func (ls *leases) add(l *lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.all[l.server.ID] = l
}

func (ls *leases) remove(l *lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.all[l.server.ID] == l {
		delete(ls.all, l.server.ID)
	}
}

// of is a server's lease, nil where it has none.
func (ls *leases) of(server uuid.UUID) *lease {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.all[server]
}

func (ls *leases) list() (list []*lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, l := range ls.all {
		list = append(list, l)
	}
	return list
}

// running counts those of a project, or of all where it is empty.
func (ls *leases) running(project string) (n int) {
	for _, l := range ls.list() {
		if project == "" || l.c.project == project {
			n++
		}
	}
	return n
}

// holder is the lease that has a disk attached, nil for none.
func (ls *leases) holder(disk uuid.UUID) *lease {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	return ls.disks[disk]
}

// holds notes that a disk is attached for a lease, and frees that it is not any more.
func (ls *leases) holds(l *lease, disk uuid.UUID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.disks[disk] = l
}

func (ls *leases) frees(l *lease, disk uuid.UUID) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.disks[disk] == l {
		delete(ls.disks, disk)
	}
}

// cut has no run with this one's token go on: its guest has heard errors of its disks, and somebody was told that it is switched off.
func (ls *leases) cut(l *lease) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.cutOff[l.server.ID] = l.token
}

// mayGoOn refuses a run that was cut. One that begins has the server forget that.
func (ls *leases) mayGoOn(l *lease, begins bool) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if begins {
		delete(ls.cutOff, l.server.ID)
	} else if ls.cutOff[l.server.ID] == l.token {
		return refusal.New(refusal.Damaged, "switch it off, and start it anew", "its run was ended by force, and its disks were taken from it")
	}
	return nil
}

// lost has the run that had a disk attached forget it, where somebody else has detached it: whoever attaches it next has it for himself.
func (ls *leases) lost(disk uuid.UUID) {
	l := ls.holder(disk)
	if l == nil {
		return
	}
	if at := l.disk(disk); at != nil && !l.isAttached(at) {
		l.drop(at)
	}
}

// stop lets go of all runs without detaching anything: their runners are told, and ask the next daemon. What works on disks of a run is waited for.
func (ls *leases) stop(ctx context.Context) error {
	ls.mu.Lock()
	ls.stopping = true
	ls.mu.Unlock()
	var told sync.WaitGroup
	for _, l := range ls.list() {
		told.Go(l.bye)
	}
	wake := context.AfterFunc(ctx, func() {
		ls.mu.Lock()
		defer ls.mu.Unlock()
		ls.rested.Broadcast()
	})
	defer wake()
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for ls.working > 0 && ctx.Err() == nil {
		ls.rested.Wait()
	}
	return ctx.Err()
}

// heldByServer refuses to take a disk away from a server that runs on it.
func (d *Daemon) heldByServer(a *volume.Attachment) error {
	l := d.leases.holder(a.Disk)
	if l == nil || l.isCut() { // what is left of a run that has ended everybody may end who could
		return nil
	}
	name := l.server.Name
	next := "run `nbdcrypt server stop " + name + "`"
	if at := l.disk(a.Disk); at != nil && at.role == control.DataDisk {
		next = "run `nbdcrypt server detach " + name + " " + a.Name + "`, or `nbdcrypt server stop " + name + "`"
	}
	return refusal.New(refusal.Busy, next, "disk %s can't be detached: server %s runs on it", a.Name, name)
}

// becauseOfServer adds to the refusal of an attach which server has the disk.
func (d *Daemon) becauseOfServer(c *call, why error) error {
	if refusal.CodeOf(why) != refusal.Busy {
		return why
	}
	id, _, err := d.volumes.KeyOf(c.ctx, c.project, c.disk())
	if err != nil {
		return why
	}
	if disk, err := uuid.Parse(id); err == nil {
		if l := d.leases.holder(disk); l != nil {
			return refusal.New(refusal.Busy, "run `nbdcrypt server stop "+l.server.Name+"` first", "%w: server %s runs on it", why, l.server.Name)
		}
	}
	return why
}
