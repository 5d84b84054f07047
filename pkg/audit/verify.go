package audit

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/refusal"
)

// Verified is what a log that was verified is like.
type Verified struct {
	Head Head
	// Time is when the last record was written.
	Time  time.Time
	Bytes int64
}

// Verify reads the whole log from its file again, while records are appended, and holds it against memory, the head file, and heads that
// were kept by others, by who they are: whoever changed something behind the daemon's back is found.
func (l *Log) Verify(ctx context.Context, kept map[string][]Head, progress func(done, total int64)) (Verified, error) {
	f, size, check, err := l.freeze()
	if err != nil {
		return Verified{}, err
	}
	defer f.Close()
	for by, heads := range kept {
		for _, head := range heads {
			check.Add(head, by)
		}
	}
	end, err := chain.Verify(ctx, io.LimitReader(f, size), chain.Genesis(l.c.Store), check, func(done int64) { progress(done, size) })
	if err == nil {
		err = end.TornError()
	}
	return Verified{end.Head, end.Time, end.Size}, err
}

// freeze opens what stands under the log's name now, and takes note of what it has to be while nothing is written. The file must be the
// one that is appended to, and exactly as long as memory knows; the head file must say what was written last.
func (l *Log) freeze() (f *os.File, size int64, check *chain.Witnesses, err error) {
	l.io.Lock()
	defer l.io.Unlock()
	l.mu.Lock()
	now := l.durable
	l.mu.Unlock()
	check = chain.NewWitnesses()
	check.Add(now.Head, "the daemon's memory")
	if f, err = os.Open(l.c.Path); err != nil {
		return nil, 0, nil, refusal.New(refusal.Damaged, "stop the daemon, and restore the state directory from a backup", "the audit log is gone: %w", err)
	}
	if err = l.sameHead(); err == nil {
		err = l.sameFile(f, now)
	}
	if err != nil {
		f.Close()
		return nil, 0, nil, err
	}
	return f, now.Size, check, nil
}

// sameFile refuses a file that is not the one that is written to, or has bytes behind what was written.
func (l *Log) sameFile(f *os.File, now chain.End) error {
	found, err := f.Stat()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	ours, err := l.f.Stat()
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	switch {
	case !os.SameFile(found, ours):
		return refusal.New(refusal.Damaged, "keep both files as evidence; the daemon still holds its own open, as /proc/PID/fd shows",
			"the audit log was replaced: %s is another file than the one that the daemon writes", l.c.Path)
	case found.Size() > now.Size:
		return chain.Damage(now.Head.Seq+1, fmt.Errorf("%d bytes follow the last record, and the daemon has not written them", found.Size()-now.Size))
	}
	return nil
}

// sameHead refuses a head file that does not say what was written last.
func (l *Log) sameHead() error {
	if l.head == nil {
		return nil
	}
	h, err := openHead(l.c)
	if err != nil {
		return err
	}
	if h == nil {
		return headDamage(os.ErrNotExist)
	}
	defer h.close()
	if h.last != l.head.last && !l.head.unsure {
		return headDamage(fmt.Errorf("it says record %d, and the daemon has written record %d", h.last.Seq, l.head.last.Seq))
	}
	return nil
}
