package catalog

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"github.com/dgraph-io/badger/v4/y"
	"golang.org/x/sys/unix"
)

// Sizes of Badger for a small catalog. A transaction may hold 15 % of memTable: MaxOps values of inlineValue fit,
// and larger ones go to the value log, of which a transaction holds but the place.
const (
	memTable     = 2 << 20
	inlineValue  = 4 << 10
	valueLogFile = 1 << 20
	// needFree is what has to be free before a commit. Badger writes through sparse memory maps: a full file
	// system would not be an error there but the end of the process.
	needFree = 16 << 20
)

func badgerOptions(dir string, log *badgerLog) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(log).
		WithSyncWrites(true).
		WithDetectConflicts(false).
		WithMetricsEnabled(false).
		WithNumGoroutines(1).
		WithMemTableSize(memTable).
		WithNumMemtables(2).
		WithBaseTableSize(1 << 20).
		WithBaseLevelSize(4 << 20).
		WithNumCompactors(2).
		WithValueThreshold(inlineValue).
		WithValueLogFileSize(valueLogFile).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithVerifyValueChecksum(true).
		// Whole tables are read before Badger opens them (precheck).
		WithChecksumVerificationMode(options.OnBlockRead).
		// The directory's lock is ours: it has to hold before the copy is made.
		WithBypassLockGuard(true)
}

type badgerBackend struct {
	db     *badger.DB
	dir    *lockedDir
	log    *badgerLog
	gc     sync.WaitGroup
	stopGC chan struct{}
}

func (b *badgerBackend) snapshot() (snapshot, error) {
	return badgerSnapshot{b.db.NewTransaction(false)}, nil
}

func (b *badgerBackend) commit(changes []change) error {
	if err := b.dir.reserve(); err != nil {
		return fmt.Errorf("%w: %w", errNotCommitted, err)
	}
	txn := b.db.NewTransaction(true)
	defer txn.Discard()
	for _, c := range changes {
		if err := stage(txn, c); err != nil {
			return fmt.Errorf("%w: %w", errNotCommitted, err)
		}
	}
	if err := txn.Commit(); err != nil {
		return err
	}
	// Badger only logs where the sync of its value log fails.
	return b.log.failedSync()
}

func stage(txn *badger.Txn, c change) error {
	if c.value == nil {
		return txn.Delete([]byte(c.key))
	}
	return txn.Set([]byte(c.key), c.value)
}

// splits are names that divide the records into about equal parts, two for each processor.
func (b *badgerBackend) splits() (names []string) {
	var first []string
	for _, t := range b.db.Tables() {
		first = append(first, string(y.ParseKey(t.Left)))
	}
	slices.Sort(first)
	first = slices.Compact(first)
	parts := 2 * runtime.GOMAXPROCS(0)
	for i := 1; i < parts && len(first) >= parts; i++ {
		names = append(names, first[i*len(first)/parts])
	}
	return names
}

// collect gives back the space of value log files that hold mostly what is gone.
func (b *badgerBackend) collect() {
	b.gc.Go(func() {
		for b.db.RunValueLogGC(0.5) == nil {
			select {
			case <-b.stopGC:
				return
			default:
			}
		}
	})
}

// close closes Badger, which writes a table as it does so, through a memory map again. Where there is no room for
// that it is left open: each commit is in the log already, so that nothing is lost that a kill would not lose.
func (b *badgerBackend) close() error {
	close(b.stopGC)
	b.gc.Wait()
	if errors.Is(b.dir.reserve(), syscall.ENOSPC) {
		return b.dir.Close()
	}
	err := b.db.Close()
	return errors.Join(err, b.dir.Close())
}

type badgerSnapshot struct{ txn *badger.Txn }

func (s badgerSnapshot) release() { s.txn.Discard() }

func (s badgerSnapshot) get(key string) ([]byte, error) {
	item, err := s.txn.Get([]byte(key))
	if errors.Is(err, badger.ErrKeyNotFound) {
		return nil, ErrNotFound
	}
	if err != nil {
		return nil, recordDamage(key, err)
	}
	return itemValue(item)
}

// itemValue never returns nil for a value that is there. Badger panics on some places of a value log that it
// can't read.
func itemValue(item *badger.Item) (v []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = recordDamage(string(item.Key()), fmt.Errorf("%v", p))
		}
	}()
	v, err = item.ValueCopy([]byte{})
	if err != nil {
		return nil, recordDamage(string(item.Key()), err)
	}
	if v == nil {
		v = []byte{}
	}
	return v, nil
}

func recordDamage(key string, err error) error {
	return DamagedRecord{key, err}
}

func (s badgerSnapshot) scan(prefix, after string, limit int) (pairs []Pair, err error) {
	it := s.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
	defer it.Close()
	for it.Seek([]byte(max(prefix, after))); it.Valid() && len(pairs) < limit; it.Next() {
		item := it.Item()
		if bytes.Equal(item.Key(), []byte(after)) {
			continue
		}
		v, err := itemValue(item)
		if err != nil {
			return pairs, err
		}
		pairs = append(pairs, Pair{string(item.Key()), v})
	}
	return pairs, nil
}

func (s badgerSnapshot) visit(from string, fn func(key, value []byte) bool) (err error) {
	it := s.txn.NewIterator(badger.IteratorOptions{})
	defer it.Close()
	defer func() {
		if p := recover(); p != nil {
			err = recordDamage(string(it.Item().Key()), fmt.Errorf("%v", p))
		}
	}()
	for it.Seek([]byte(from)); it.Valid(); it.Next() {
		item, more := it.Item(), false
		err := item.Value(func(value []byte) error {
			more = fn(item.Key(), value)
			return nil
		})
		if err != nil {
			return recordDamage(string(item.Key()), err)
		}
		if !more {
			break
		}
	}
	return nil
}

func (s badgerSnapshot) names(prefix, after string, limit int) (names []string) {
	it := s.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
	defer it.Close()
	for it.Seek([]byte(max(prefix, after))); it.Valid() && len(names) < limit; it.Next() {
		if key := string(it.Item().Key()); key != after {
			names = append(names, key)
		}
	}
	return names
}

func (s badgerSnapshot) count(prefix string) (n int) {
	it := s.txn.NewIterator(badger.IteratorOptions{Prefix: []byte(prefix)})
	defer it.Close()
	for it.Seek([]byte(prefix)); it.Valid(); it.Next() {
		n++
	}
	return n
}

// badgerLog sends Badger's words to slog at debug level, and remembers the failed syncs among them.
type badgerLog struct {
	to *slog.Logger

	mu     sync.Mutex
	failed error
}

func (l *badgerLog) say(format string, args []any) string {
	text := strings.TrimSpace(fmt.Sprintf(format, args...))
	l.to.Debug("catalog: badger: " + text)
	return text
}

// Errorf implements badger.Logger.
func (l *badgerLog) Errorf(format string, args ...any) {
	text := l.say(format, args)
	if strings.Contains(text, "sync") {
		l.mu.Lock()
		l.failed = fmt.Errorf("badger: %s: %w", text, syscall.EIO)
		l.mu.Unlock()
	}
}

// Warningf implements badger.Logger.
func (l *badgerLog) Warningf(format string, args ...any) { l.say(format, args) }

// Infof implements badger.Logger.
func (l *badgerLog) Infof(format string, args ...any) { l.say(format, args) }

// Debugf implements badger.Logger.
func (l *badgerLog) Debugf(string, ...any) {}

func (l *badgerLog) failedSync() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.failed
}

// freeBytes is what the file system of dir can still take.
func freeBytes(dir string) (uint64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return 0, fmt.Errorf("catalog: %s: %w", dir, err)
	}
	return st.Bavail * uint64(st.Bsize), nil
}
