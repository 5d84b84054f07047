// Package audit is the log of every verb, refusals too, chained by hashes: an edit, a dropped, added or reordered
// line, and an end that was cut below what the catalog saw are found. It does not keep whoever may write both log
// and catalog from writing a new history.
package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
)

// TornFile is where unsynced ends of the log are kept, in the log's folder.
const TornFile = "audit.torn"

// file is what the log needs of its file; tests give one that fails.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	// Sync makes what was written durable.
	Sync() error
	Close() error
}

// dataFile syncs data and size, not times.
type dataFile struct{ *os.File }

func (f dataFile) Sync() error { return durable.Data(f.File) }

// Clock tells the time of a record.
type Clock interface{ Now() time.Time }

// Config is what a log works on.
type Config struct {
	Path  string
	Store uuid.UUID
	Clock Clock
	// Create allows a log to be made. Without it a log that is missing is damage.
	Create bool
}

// Log is an open log. Records are synced in groups: whoever comes while a sync is under way shares the next one.
type Log struct {
	path  string
	store uuid.UUID
	clock Clock
	f     file

	mu sync.Mutex
	// durable is the chain as it lies on the disk, next the one that the records in the group continue.
	durable, next chain
	group         *group
	flushing      bool
	failed        error
	// missed is how many records could not be written since the last that was: the next one says so first.
	missed int
}

// group is some records that are written and synced together.
type group struct {
	lines []byte
	// records counts those of callers, and those that were missed before and are spoken of here.
	records int
	done    chan struct{}
	err     error
}

func newGroup() *group { return &group{done: make(chan struct{})} }

// Open opens the log, verifying all of it. A last line that was never synced is moved to the file audit.torn beside
// it, and recorded.
func Open(ctx context.Context, c Config) (*Log, error) {
	flags := os.O_RDWR
	if c.Create {
		flags |= os.O_CREATE
	}
	f, err := os.OpenFile(c.Path, flags, 0o600)
	if errors.Is(err, os.ErrNotExist) {
		return nil, refusal.New(refusal.Damaged, "restore it from a backup of the state directory", "the audit log is missing: %w", err)
	}
	if errors.Is(err, unix.EISDIR) {
		return nil, refusal.New(refusal.Damaged, "restore it from a backup of the state directory", "the audit log is no file: %w", err)
	}
	if err != nil {
		return nil, refusal.New(refusal.Failed, "see that the daemon's user may read and write it", "the audit log can't be opened: %w", err)
	}
	l, err := load(ctx, c, f)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return l, nil
}

func load(ctx context.Context, c Config, f *os.File) (*Log, error) {
	read, err := walk(f, c.Store, func(Record) error { return ctx.Err() })
	if err != nil {
		return nil, err
	}
	l := &Log{path: c.Path, store: c.Store, clock: c.Clock, f: dataFile{f}, durable: read, next: read, group: newGroup()}
	if err := durable.Dir(filepath.Dir(c.Path)); err != nil {
		return nil, err
	}
	if len(read.torn) == 0 {
		return l, nil
	}
	return l, l.dropTorn(ctx)
}

// dropTorn moves the unsynced end away. Nobody got an answer for it.
func (l *Log) dropTorn(ctx context.Context) error {
	torn := l.durable.torn
	l.durable.torn, l.next.torn = nil, nil
	beside := filepath.Join(filepath.Dir(l.path), TornFile)
	if err := keepTorn(beside, torn); err != nil {
		return err
	}
	if err := l.f.Truncate(l.durable.size); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	_, err := l.Append(ctx, Record{
		Verb: "audit.torn", Outcome: OK, Catalog: l.Revision(),
		Message: fmt.Sprintf("an unsynced last line of %d bytes was moved to %s", len(torn), TornFile),
	})
	return err
}

func keepTorn(path string, torn []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	_, err = f.Write(append(torn, '\n'))
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return durable.Dir(filepath.Dir(path))
}

// Append adds a record and returns it once it is durable. After an error nothing of it is in the log; the next record that
// can be written is preceded by one that says how many are missing.
func (l *Log) Append(ctx context.Context, rec Record) (Record, error) {
	if err := ctx.Err(); err != nil {
		return rec, fmt.Errorf("audit: %w", err)
	}
	g, leader, err := l.enter(&rec)
	if err != nil {
		return rec, err
	}
	if leader {
		l.flush()
	}
	// A record that is in a group must be waited for: it may become durable whatever the caller does.
	<-g.done
	return rec, g.err
}

// enter chains a record and puts it into the group; the first to come leads.
func (l *Log) enter(rec *Record) (g *group, leader bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return nil, false, l.failed
	}
	if l.missed > 0 {
		err = l.chain(&Record{Verb: "audit.missed", Outcome: OK, Catalog: l.next.revision,
			Message: fmt.Sprintf("%d records before this one could not be written", l.missed)}, l.missed)
	}
	if err == nil {
		l.missed = 0
		err = l.chain(rec, 1)
	}
	if err != nil {
		return nil, false, err
	}
	leader = !l.flushing
	l.flushing = true
	return l.group, leader, nil
}

// chain puts a record into the group; it stands for so many.
func (l *Log) chain(rec *Record, records int) error {
	rec.Seq, rec.Prev, rec.Time = l.next.head.Seq+1, l.next.head.Hash, l.clock.Now()
	line, err := encode(rec)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	l.next.head = Head{rec.Seq, rec.Hash}
	l.next.revision = max(l.next.revision, rec.Catalog)
	l.next.size += int64(len(line))
	l.group.lines = append(l.group.lines, line...)
	l.group.records += records
	return nil
}

// flush writes groups until there is none.
func (l *Log) flush() {
	for {
		l.mu.Lock()
		g, at, after := l.group, l.durable.size, l.next
		if len(g.lines) == 0 {
			l.flushing = false
			l.mu.Unlock()
			return
		}
		l.group = newGroup()
		l.mu.Unlock()
		err, lost := l.write(g.lines, at)
		l.finish(g, after, err, lost)
	}
}

// write writes a group. lost tells that the file is in a state that nobody knows.
func (l *Log) write(lines []byte, at int64) (err error, lost bool) {
	if _, err := l.f.WriteAt(lines, at); err != nil {
		cut := l.f.Truncate(at)
		return errors.Join(fmt.Errorf("audit: write: %w", err), cut), cut != nil
	}
	if err := l.f.Sync(); err != nil {
		return fmt.Errorf("audit: sync: %w", err), true
	}
	return nil, false
}

// finish tells the group how it went. Those who have chained themselves to a group that failed fail with it.
func (l *Log) finish(g *group, after chain, err error, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g.err = err
	close(g.done)
	if err == nil {
		l.durable = after
		return
	}
	l.group.err = err
	close(l.group.done)
	l.missed += g.records + l.group.records
	l.group, l.next = newGroup(), l.durable
	if lost {
		l.failed = refusal.New(refusal.Failed, "see what the system's log says of the disk, then start the daemon again",
			"the audit log can't be written any more, so nothing is done: %w", err)
	}
}

// Head is the last record that is durable.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.head
}

// Revision is the highest catalog revision that a durable record names.
func (l *Log) Revision() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.revision
}

// Close closes the file. No Append may be under way.
func (l *Log) Close() error { return l.f.Close() }
