// Package daemon wires everything together and is the only place where it all meets: it opens the state directory, serves
// the control API and NBD, hands attached disks from one to the other, and ends in good order.
package daemon

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/attest"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/server"
	"nbdcrypt/pkg/volume"
)

// Options are what the daemon is started with; every path is absolute.
type Options struct {
	State, Run, Pool, RootKey, Region string
	// Backups is the directory that backups lie in; backups/ in the state directory where it is empty.
	Backups string
	// Listen are more places to serve NBD at, as URIs.
	Listen []string
	// TLSCert, TLSKey and TLSCA are files in PEM: all or none.
	TLSCert, TLSKey, TLSCA string
	// InsecureLoopback allows NBD over TCP without TLS at addresses that only this machine reaches.
	InsecureLoopback bool
	// Metrics is where metrics are told to whoever connects, HOST:PORT or unix:PATH; empty for the control socket alone.
	Metrics string
	// Hook is a program that is run for each event; empty for none.
	Hook string
	// ReplaceAuditLog has a damaged audit log kept aside, and another begun.
	ReplaceAuditLog bool
	// KeyMemory is where keys have to lie: "auto" or empty for the best that there is, "memfd_secret" or "locked".
	KeyMemory string
	// Clock is the machine's where it is nil.
	Clock clock.Clock
	// NotifyDays is how long before the deletion of a key it is told of; 7 where it is 0.
	NotifyDays int
	Version    string
	Log        *slog.Logger
	// Ready is called with the NBD socket's URI once the daemon accepts.
	Ready func(uri string)
}

// What a stop may take, part by part: a call or a client that does not end must not take the time in which disks are
// flushed and detached. Together they are 60 s, below what nbdcrypt.service gives.
const (
	stopCallsTime = drainTime + 5*time.Second
	stopDisksTime = drainTime + 5*time.Second
	stopLastTime  = 5 * time.Second
)

// keptJobs is how many jobs are remembered after their end: as many detaches may wait for one search, and each still has to ask.
const keptJobs = 1024

// Daemon is a running daemon.
type Daemon struct {
	o       Options
	flusher bool // the kernel does not have it wait for pages that wait for it
	started time.Time
	self    access.Caller

	locks   []*dirLock
	root    *keystore.Root
	log     *audit.Log
	raw     catalog.Store // what Badger holds
	catalog catalog.Store // the same, sealed and witnessed
	clock   *clock.Guard
	keys    *keystore.Store
	pool    *pool.Files
	access  *access.Access
	volumes *volume.Service
	servers *server.Service
	attests *attest.Service

	jobs    *control.Jobs
	replays *replays
	pace    *pace
	guesses *guesses
	kept    kept
	exports *exports
	leases  *leases
	// These are constants, but for tests.
	takenTime, runnerTime time.Duration
	nbd                   *nbd.Server
	api                   *http.Server
	listens               []string // URIs at which NBD is served
	scrape                http.Handler
	scrapes               chan struct{} // holds one for each scrape that is being answered

	// asking counts the calls that a passphrase follows.
	asking sync.WaitGroup
	// dueMu is held by what does what is due; dueDay is when a deletion was told of, by the id of the key.
	dueMu  sync.Mutex
	dueDay map[string]string
	// watching ends when nothing looks at what is due any more.
	watching sync.WaitGroup
	// life ends when the daemon begins to stop.
	life    context.Context
	endLife context.CancelFunc
	// opening is held by what opens and closes, or locks. isOpen tells that everything down to volumes is there; until the root
	// key was open for the first time it is not.
	opening sync.Mutex
	isOpen  atomic.Bool

	// projects is held by what puts something into a project, and alone by what deletes one.
	projects sync.RWMutex

	mu          sync.Mutex
	warnings    []string
	failing     []string  // what was due when it was looked at last, and could not be done
	lockedSince time.Time // zero where the root key is open
	unrecorded  sync.Once
	headless    sync.Once

	chores *chores
	// space is the pool's; poolTold, which dueMu keeps, tells that it was told of as filling up.
	space    func() (pool.Space, error)
	poolTold bool

	hook *hook // nil without one
	// refusedUnwraps counts what keys or rights forbade, auditFailures the records that could not be written.
	refusedUnwraps, auditFailures atomic.Uint64
}

func newDaemon(o Options) *Daemon {
	if o.Clock == nil {
		o.Clock = clock.System{}
	}
	if o.NotifyDays == 0 {
		o.NotifyDays = notifyDays
	}
	if o.Backups == "" {
		o.Backups = filepath.Join(o.State, "backups")
	}
	d := &Daemon{o: o, started: time.Now().UTC().Truncate(time.Second), jobs: control.NewJobs(keptJobs), replays: newReplays(256),
		pace: newPace(), guesses: newGuesses(), exports: newExports(), leases: newLeases(), takenTime: takenTime, runnerTime: runnerTime, dueDay: map[string]string{}, chores: newChores()}
	d.space = func() (pool.Space, error) { return d.pool.Space() }
	d.life, d.endLife = context.WithCancel(context.Background())
	d.scrape = newScrape(d)
	d.scrapes = make(chan struct{}, maxScrapes)
	d.self = d.callerOf(uint32(os.Geteuid()))
	return d
}

// untilStop is a context for what is brought to its end when its caller goes away, but not when the daemon stops.
func (d *Daemon) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	forget := context.AfterFunc(d.life, cancel)
	return ctx, func() { forget(); cancel() }
}

// Run opens everything, serves until ctx ends, and stops: every disk is drained, flushed and wiped.
func Run(ctx context.Context, o Options) error {
	// First of all: a service manager that promised more than it gave would have us take files of our own for sockets.
	given, err := activatedSockets()
	if err != nil {
		return err
	}
	d := newDaemon(o)
	defer d.close()
	if err := d.open(ctx); err != nil {
		return err
	}
	d.nbd = nbd.NewServer(d.exports, o.Log)
	d.api = d.newAPI()
	failed, err := d.serve(context.WithoutCancel(ctx), given)
	if err != nil {
		return err
	}
	d.watching.Go(func() { d.watchDue(lookEvery) })
	d.watching.Go(d.doChores)
	d.announce()
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	return errors.Join(err, d.stop())
}

func (d *Daemon) nbdPath() string { return filepath.Join(d.o.Run, control.SocketNBD) }

// announce tells whoever waits that the daemon accepts: the service manager, and the reader of stdout.
func (d *Daemon) announce() {
	state := daemon.SdNotifyReady
	if line := d.statusLine(); line != "" {
		state += "\nSTATUS=" + line
		d.o.Log.Warn(line)
	}
	if _, err := daemon.SdNotify(false, state); err != nil {
		d.o.Log.Warn("the service manager could not be told", "err", err)
	}
	d.o.Log.Info("ready", "state", d.o.State, "control", filepath.Join(d.o.Run, control.SocketControl), "nbd", d.nbdPath())
	d.o.Ready(control.URI("", d.nbdPath()))
}

// stop ends in good order: no new handshakes, no new calls, then every disk, then the connections.
func (d *Daemon) stop() error {
	d.o.Log.Info("stopping", "attached", len(d.attachments()))
	_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
	d.nbd.Quiesce()
	d.pace.end()
	d.attests.Close()
	d.endLife()
	d.watching.Wait()
	return errors.Join(within(stopCallsTime, d.stopCalls), within(stopDisksTime, d.detachAll),
		within(stopLastTime, d.nbd.Shutdown), within(stopLastTime, d.recordStop))
}

// within gives a part of the stop its time.
func within(limit time.Duration, part func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return part(ctx)
}

// stopCalls waits for jobs and calls, and for what attaches or detaches disks of servers; connections that are left are cut.
func (d *Daemon) stopCalls(ctx context.Context) error {
	freed := make(chan error, 1)
	go func() { freed <- d.leases.stop(ctx) }()
	err := errors.Join(d.jobs.Shutdown(ctx), d.api.Shutdown(ctx), d.api.Close(), <-freed)
	asked := make(chan struct{})
	go func() { d.asking.Wait(); close(asked) }()
	select {
	case <-asked:
	case <-ctx.Done():
	}
	return err
}

func (d *Daemon) recordStop(ctx context.Context) error {
	if !d.isOpen.Load() {
		return nil
	}
	// The commit has the catalog know the log's head as of now, too.
	if _, err := d.clock.KeepLast(ctx, newRequest()); err != nil {
		d.o.Log.Error("the time can't be kept", "err", err)
	}
	_, err := d.log.Append(ctx, d.ownRecord("daemon.stop"))
	return err
}

// attachments are the disks that are attached; none are before the catalog is open.
func (d *Daemon) attachments() []*volume.Attachment {
	if !d.isOpen.Load() {
		return nil
	}
	return d.volumes.Attachments()
}

// attachedIn are those of one project, or of all where it is empty.
func (d *Daemon) attachedIn(project string) []*volume.Attachment {
	return slices.DeleteFunc(d.attachments(), func(a *volume.Attachment) bool { return project != "" && a.Project != project })
}

// detachAll detaches every disk at once, so that one slow disk does not keep the others.
func (d *Daemon) detachAll(ctx context.Context) error {
	list := d.attachments()
	errs := make([]error, len(list))
	var wg sync.WaitGroup
	for i, a := range list {
		wg.Go(func() {
			c := &call{ctx: ctx, caller: d.self, pid: int32(os.Getpid()), request: newRequest(), project: a.Project}
			d.hangUp(ctx, a)
			_, _, errs[i] = d.detach(c, volume.DetachSpec{Project: a.Project, Disk: a.Disk.String(), All: true})
			d.record(c, "detach", a.Disk.String(), errs[i])
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// close lets go of what is open, in the reverse order. What mattered was synced before.
func (d *Daemon) close() {
	d.endLife()
	d.watching.Wait()
	if d.attests != nil {
		d.attests.Close() // what it has found goes into the log
	}
	if d.hook != nil {
		<-d.hook.ended
	}
	d.opening.Lock()
	defer d.opening.Unlock()
	d.closeRest()
	if d.root != nil {
		d.root.Close()
	}
	for _, l := range d.locks {
		l.release()
	}
}

// closeRest closes what lies under the root key, as far as it is open.
func (d *Daemon) closeRest() {
	if d.volumes != nil {
		d.volumes.Close()
	}
	if d.keys != nil {
		_ = d.keys.Close()
	}
	if d.raw != nil {
		if err := d.raw.Close(); err != nil {
			d.o.Log.Error("closing the catalog", "err", err)
		}
	}
	if d.log != nil {
		_ = d.log.Close()
	}
}

// warn keeps something that `status` should tell until the daemon ends.
func (d *Daemon) warn(text string) {
	d.o.Log.Warn(text)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.warnings = append(d.warnings, text)
}
