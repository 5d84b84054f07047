package daemon

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// chore is long work that nobody waits for: what a run before this one, a detach or an interrupted command has left, and what gives back space.
type chore struct {
	verb, project, resource string
	// what is how a person knows it.
	what string
	// due tells whether there is anything to do.
	due func(context.Context) (bool, error)
	do  func(context.Context, volume.Work) error
}

func (c chore) key() string { return c.verb + " " + c.project + " " + c.resource }

// chores are done one after the other, each as a job.
type chores struct {
	mu      sync.Mutex
	waiting []chore
	woken   chan struct{}
	running string // the key of the one that is done right now
	cancel  context.CancelFunc
	// failed says why those that could not be done could not.
	failed map[string]string
	// full are those that go on once the pool has room, keyless those that go on once a key can be used again.
	full, keyless []chore
}

func newChores() *chores { return &chores{woken: make(chan struct{}, 1), failed: map[string]string{}} }

// add has a chore be done when its turn comes, unless it waits already.
func (cs *chores) add(c chore) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if slices.ContainsFunc(cs.waiting, func(other chore) bool { return other.key() == c.key() }) {
		return
	}
	cs.waiting = append(cs.waiting, c)
	select {
	case cs.woken <- struct{}{}:
	default:
	}
}

// drop takes back a chore, also one that is being done: somebody does it himself.
func (cs *chores) drop(key string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.waiting = slices.DeleteFunc(cs.waiting, func(c chore) bool { return c.key() == key })
	delete(cs.failed, key)
	if cs.running == key {
		cs.cancel()
	}
}

// next takes the chore whose turn it is.
func (cs *chores) next(cancel context.CancelFunc) (c chore, ok bool) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	if len(cs.waiting) == 0 {
		return chore{}, false
	}
	c, cs.waiting = cs.waiting[0], cs.waiting[1:]
	cs.running, cs.cancel = c.key(), cancel
	return c, true
}

// ended keeps how a chore ended.
func (cs *chores) ended(c chore, err error) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	cs.running, cs.cancel = "", nil
	code := refusal.CodeOf(err)
	if err == nil || code == refusal.NotFound || code == refusal.Busy || errors.Is(err, context.Canceled) {
		delete(cs.failed, c.key())
		return
	}
	why := refusal.From(err)
	cs.failed[c.key()] = strings.TrimSuffix(c.what+" could not be gone on with: "+why.Message+"; "+why.Hint, "; ")
	switch {
	case errors.Is(err, syscall.ENOSPC):
		cs.full = append(cs.full, c)
	case code == refusal.KeyForbids || code == refusal.Locked:
		cs.keyless = append(cs.keyless, c)
	}
}

// hasRoom has those be done again that the pool was too full for.
func (cs *chores) hasRoom() { cs.again(&cs.full) }

// hasKeys has those be done again that a key was missing for.
func (cs *chores) hasKeys() { cs.again(&cs.keyless) }

func (cs *chores) again(list *[]chore) {
	cs.mu.Lock()
	again := *list
	*list = nil
	cs.mu.Unlock()
	for _, c := range again {
		cs.add(c)
	}
}

// warnings say what could not be done.
func (cs *chores) warnings() (list []string) {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	for _, why := range cs.failed {
		list = append(list, why)
	}
	slices.Sort(list)
	return list
}

// doChores does them until the daemon stops.
func (d *Daemon) doChores() {
	for {
		select {
		case <-d.life.Done():
			return
		case <-d.chores.woken:
		}
		for d.doChore() {
		}
	}
}

// doChore does the next one, if there is any.
func (d *Daemon) doChore() bool {
	ctx, cancel := context.WithCancel(d.life)
	defer cancel()
	c, ok := d.chores.next(cancel)
	if !ok {
		return false
	}
	if due, err := c.due(ctx); err != nil || !due {
		d.chores.ended(c, err)
		return true
	}
	ended := make(chan struct{})
	about := control.Job{Verb: c.verb, Resource: c.resource, Project: c.project, Unit: "bytes", By: d.self.User}
	_, err := d.jobs.Await(about, func(job context.Context, progress func(done, total int64)) (any, error) {
		defer close(ended)
		stop := context.AfterFunc(job, cancel)
		defer stop()
		err := d.choreWork(ctx, c, progress)
		if ctx.Err() != nil {
			d.chores.ended(c, nil) // somebody ended it, who knows
		} else {
			d.chores.ended(c, err)
		}
		return nil, err
	})
	if err != nil { // the daemon stops
		return false
	}
	<-ended
	return true
}

// choreWork does a chore, and records it where there was anything to do.
func (d *Daemon) choreWork(ctx context.Context, c chore, progress func(done, total int64)) error {
	own := &call{ctx: context.Background(), caller: d.self, pid: int32(os.Getpid()), request: newRequest(), project: c.project}
	begun := false
	err := c.do(ctx, d.workOf(own, c.verb, c.resource, progress, func() { begun = true }))
	if begun && !own.recorded {
		d.record(own, c.verb, c.resource, err)
	}
	return err
}

// workOf is how long work tells of itself: its progress to whoever follows the job, each key that it has unwrapped to the audit log.
func (d *Daemon) workOf(c *call, verb, resource string, progress func(done, total int64), begun func()) volume.Work {
	return volume.Work{Progress: progress, Begun: begun, Released: func(_ keystore.Holder, key *keystore.KeyVersionRef) error {
		one := *c // the record of the verb comes at its end
		one.request = newRequest()
		return d.recordRelease(&one, "key.released", verb+" "+resource, key.String())
	}}
}

// fillSoon goes on with what long work has left of a disk.
func (d *Daemon) fillSoon(project, disk, name string) {
	d.chores.add(d.fillChore(project, disk, name))
}

func (d *Daemon) fillChore(project, disk, name string) chore {
	return chore{verb: "disk.filled", project: project, resource: disk, what: "what is to be copied into disk " + name,
		due: func(ctx context.Context) (bool, error) { return d.volumes.Owes(ctx, project, disk) },
		do:  func(ctx context.Context, w volume.Work) error { return d.volumes.GoOn(ctx, project, disk, w) }}
}

// tidySoon gives back layers that nobody needs any more.
func (d *Daemon) tidySoon() {
	d.chores.add(chore{verb: "layers.merged", resource: "pool", what: "giving back the space of what was deleted", due: d.volumes.Untidy,
		do: func(ctx context.Context, w volume.Work) error { return d.volumes.Tidy(ctx, w) }})
}

// keysBack goes on with what waited for a key that can be used again.
func (d *Daemon) keysBack() {
	d.chores.hasKeys()
	d.tidySoon() // a deletion that was answered with a warning left no chore
}

// goOn begins with what the run before this one has left.
func (d *Daemon) goOn() {
	for _, f := range d.volumes.PendingFills() {
		d.fillSoon(f.Project, f.ID, f.Name)
	}
	d.tidySoon()
}
