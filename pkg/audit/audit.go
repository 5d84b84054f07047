// Package audit is the log of every verb, refusals too, chained by hashes, whose head is kept under a key: an edit, a dropped, added or
// reordered line, an end that was cut, and a history that somebody without the key has written anew are found. A log that was
// put back together with everything else is found only by a head that was kept elsewhere.
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

	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/durable"
	"nbdcrypt/pkg/refusal"
)

// Record and Head are the chain's, Outcomes too.
type (
	Record = chain.Record
	Head   = chain.Head
)

// Outcomes of a verb.
const (
	OK      = chain.OK
	Refused = chain.Refused
)

// TornFile is where unsynced ends of the log are kept, in the log's folder.
const TornFile = "audit.torn"

// file is what the log needs of its file; tests give one that fails.
type file interface {
	WriteAt(p []byte, off int64) (int, error)
	Truncate(size int64) error
	// Reserve takes space for n bytes from off on, without making the file longer.
	Reserve(off, n int64) error
	// Sync makes what was written durable.
	Sync() error
	Stat() (os.FileInfo, error)
	Close() error
}

// dataFile syncs data and size, not times.
type dataFile struct{ *os.File }

func (f dataFile) Sync() error { return durable.Data(f.File) }

// Reserve knows no better where the file system can't reserve.
func (f dataFile) Reserve(off, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		return nil
	}
	return err
}

// Clock tells the time of a record.
type Clock interface{ Now() time.Time }

// Config is what a log works on.
type Config struct {
	Path  string
	Store uuid.UUID
	Clock Clock
	// MAC authenticates the head under a key of the store's.
	MAC MAC
	// HeadFailed is told where the head could not be written. Records are as good as before.
	HeadFailed func(error)
	// Create allows a log to be made. Without it a log that is missing is damage.
	Create bool
}

// Log is an open log. Records are synced in groups: whoever comes while a sync is under way shares the next one.
type Log struct {
	c Config
	f file

	// io is held by who writes the file or its head, and by who holds both against memory.
	io   sync.Mutex
	head *headFile // nil until there is one

	mu sync.Mutex
	// durable is the chain as it lies on the disk, next the one that the records in the group continue.
	durable, next chain.End
	group         *group
	flushing      bool
	failed        error
	// missed is how many records could not be written since the last that was: the next one says so first.
	missed int
	// news is closed and replaced when records became durable.
	news chan struct{}
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
		return nil, refusal.New(refusal.Damaged, chain.Advice, "the audit log is missing: %w", err)
	}
	if errors.Is(err, unix.EISDIR) {
		return nil, refusal.New(refusal.Damaged, chain.Advice, "the audit log is no file: %w", err)
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
	head, err := openHead(c)
	if err != nil {
		return nil, err
	}
	read, err := readAll(ctx, c, f, head)
	if err != nil {
		return nil, errors.Join(err, head.close())
	}
	l := &Log{c: c, f: dataFile{f}, head: head, durable: read, next: read, group: newGroup(), news: make(chan struct{})}
	if err := durable.Dir(filepath.Dir(c.Path)); err != nil {
		return nil, err
	}
	if head == nil && c.Create {
		if err := l.makeHead(); err != nil {
			return nil, err
		}
	}
	if len(read.Torn) == 0 {
		return l, nil
	}
	return l, l.dropTorn(ctx)
}

// readAll reads the log as a start does, and holds it against its head, if there is one.
func readAll(ctx context.Context, c Config, f *os.File, head *headFile) (chain.End, error) {
	end, check := chain.Begin(chain.Genesis(c.Store)), chain.NewWitnesses()
	if head != nil {
		check.Add(head.last, HeadFile)
	}
	err := end.Walk(f, func(e chain.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return check.Visit(e.Link)
	})
	if err != nil {
		return end, err
	}
	return end, check.End(end.Head)
}

// dropTorn moves the unsynced end away. Nobody got an answer for it.
func (l *Log) dropTorn(ctx context.Context) error {
	torn := l.durable.Torn
	l.durable.Torn, l.next.Torn = nil, nil
	beside := filepath.Join(filepath.Dir(l.c.Path), TornFile)
	if err := keepTorn(beside, torn); err != nil {
		return err
	}
	if err := l.f.Truncate(l.durable.Size); err != nil {
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
		err = l.chain(&Record{Verb: "audit.missed", Outcome: OK, Catalog: l.next.Revision,
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
	rec.Seq, rec.Prev, rec.Time = l.next.Head.Seq+1, l.next.Head.Hash, l.c.Clock.Now()
	line, err := chain.Encode(rec)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	l.next.Head, l.next.Time = Head{Seq: rec.Seq, Hash: rec.Hash}, rec.Time
	l.next.Revision = max(l.next.Revision, rec.Catalog)
	l.next.Size += int64(len(line))
	l.group.lines = append(l.group.lines, line...)
	l.group.records += records
	return nil
}

// flush writes groups until there is none.
func (l *Log) flush() {
	for {
		l.mu.Lock()
		g, at, after := l.group, l.durable.Size, l.next
		if len(g.lines) == 0 {
			l.flushing = false
			l.mu.Unlock()
			return
		}
		l.group = newGroup()
		l.mu.Unlock()
		l.put(g, at, after)
	}
}

// put writes a group and then the head, which is no reason to keep anybody waiting.
func (l *Log) put(g *group, at int64, after chain.End) {
	l.io.Lock()
	defer l.io.Unlock()
	err, lost := l.write(g.lines, at)
	l.finish(g, after, err, lost)
	if err == nil {
		l.writeHead(after.Head)
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
func (l *Log) finish(g *group, after chain.End, err error, lost bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	g.err = err
	close(g.done)
	if err == nil {
		l.durable = after
		close(l.news)
		l.news = make(chan struct{})
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

// readyRoom is what Ready makes sure of.
const readyRoom = chain.MaxLine

// Ready tells whether the log can take a record now. Space is reserved for it, so that the disk's being full is known before
// something is done that has to be recorded.
func (l *Log) Ready() error {
	l.mu.Lock()
	failed, at := l.failed, l.next.Size
	l.mu.Unlock()
	if failed != nil {
		return failed
	}
	if err := l.f.Reserve(at, readyRoom); err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	return nil
}

// Head is the last record that is durable.
func (l *Log) Head() Head {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.Head
}

// Revision is the highest catalog revision that a durable record names.
func (l *Log) Revision() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.durable.Revision
}

// Close closes the files. No Append may be under way.
func (l *Log) Close() error {
	l.io.Lock()
	defer l.io.Unlock()
	return errors.Join(l.f.Close(), l.head.close())
}
