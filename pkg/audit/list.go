package audit

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/refusal"
)

// Filter says which records are wanted; what is empty is not asked for.
type Filter struct {
	// Since and Until bound the time of a record, the first inclusive, the second not.
	Since, Until time.Time
	// Verb is a verb, or the first words of one: "key" means all that is done to keys.
	Verb string
	// User is a name or a uid.
	User             string
	Project, Outcome string
	// Limit takes only the last so many.
	Limit int
}

// wants tells whether a record is wanted.
func (f Filter) wants(link chain.Link, line []byte) (bool, error) {
	if link.Time.Before(f.Since) || !f.Until.IsZero() && !link.Time.Before(f.Until) {
		return false, nil
	}
	if f.Verb == "" && f.User == "" && f.Project == "" && f.Outcome == "" {
		return true, nil
	}
	if !f.mayWant(line) {
		return false, nil
	}
	var rec struct {
		UID                          uint32
		User, Verb, Project, Outcome string
	}
	if err := json.Unmarshal(line, &rec); err != nil {
		return false, chain.Damage(link.Seq, err)
	}
	is := func(want, have string) bool { return want == "" || want == have }
	return (is(f.User, rec.User) || f.User == strconv.FormatUint(uint64(rec.UID), 10)) && is(f.Project, rec.Project) &&
		is(f.Outcome, rec.Outcome) && (is(f.Verb, rec.Verb) || startsWord(rec.Verb, f.Verb)), nil
}

// mayWant looks for the words as they would stand in the line: to take every record apart would take seven times as long.
func (f Filter) mayWant(line []byte) bool {
	has := func(field, value string) bool {
		text, err := json.Marshal(value)
		return value == "" || err != nil || bytes.Contains(line, append([]byte(field), text[:len(text)-1]...))
	}
	return has(`"verb":`, f.Verb) && has(`"project":`, f.Project) && has(`"outcome":`, f.Outcome) &&
		(has(`"user":`, f.User) || bytes.Contains(line, []byte(`"uid":`+f.User+`,`)))
}

// startsWord tells whether a verb begins with whole words.
func startsWord(verb, words string) bool {
	rest, is := strings.CutPrefix(verb, words)
	return is && (rest[0] == ' ' || rest[0] == '.')
}

// Emit takes one line, without its line feed. It is lent for the time of the call.
type Emit func(line []byte) error

// Snapshot is the log as it was durable at one moment.
type Snapshot struct {
	log *Log
	end chain.End
}

// Snapshot is the log now.
func (l *Log) Snapshot() Snapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Snapshot{l, l.durable}
}

// Head is the last record of the snapshot, and when it was written.
func (s Snapshot) Head() (Head, time.Time) { return s.end.Head, s.end.Time }

// List hands out the records of the snapshot that are wanted, the oldest first. However long the log is, one line of it is in memory at a
// time, and with a limit where the last ones begin.
func (s Snapshot) List(ctx context.Context, f Filter, emit Emit) error {
	file, err := os.Open(s.log.c.Path)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer file.Close()
	if f.Limit > 0 {
		return s.last(ctx, file, f, emit)
	}
	end := chain.Begin(chain.Genesis(s.log.c.Store))
	if err := list(ctx, &end, io.NewSectionReader(file, 0, s.end.Size), f, emit); err != nil {
		return err
	}
	if end.Head != s.end.Head {
		return refusal.New(refusal.Damaged, "`nbdcrypt audit verify` says more", "the audit log was altered or cut: it ends at line %d", end.Head.Seq)
	}
	return nil
}

// list walks on and hands out what is wanted.
func list(ctx context.Context, end *chain.End, r io.Reader, f Filter, emit Emit) error {
	return end.Walk(r, func(e chain.Entry) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		wanted, err := f.wants(e.Link, e.Line)
		if err != nil || !wanted {
			return err
		}
		return emit(e.Line)
	})
}

// place is where a line lies.
type place struct {
	at     int64
	length int
}

// last hands out the last records that are wanted.
func (s Snapshot) last(ctx context.Context, file *os.File, f Filter, emit Emit) error {
	var places []place
	err := chain.Backward(file, s.end.Size, func(line []byte, at int64) (more bool, err error) {
		link, err := chain.ParseLink(line)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return false, err
		}
		wanted, err := f.wants(link, line)
		if wanted {
			places = append(places, place{at, len(line)})
		}
		return len(places) < f.Limit, err
	})
	if err != nil {
		return err
	}
	for _, p := range slices.Backward(places) {
		line := make([]byte, p.length)
		if _, err := file.ReadAt(line, p.at); err != nil {
			return fmt.Errorf("audit: read: %w", err)
		}
		if err := emit(line); err != nil {
			return err
		}
	}
	return nil
}

// Follow hands out the records that are wanted and come after the snapshot, until ctx ends. Idle is called before it waits for more.
func (s Snapshot) Follow(ctx context.Context, f Filter, emit Emit, idle func() error) error {
	file, err := os.Open(s.log.c.Path)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer file.Close()
	for end := s.end; ; {
		s.log.mu.Lock()
		size, news := s.log.durable.Size, s.log.news
		s.log.mu.Unlock()
		if err := list(ctx, &end, io.NewSectionReader(file, end.Size, size-end.Size), f, emit); err != nil {
			return err
		}
		if err := idle(); err != nil {
			return err
		}
		select {
		case <-news:
		case <-ctx.Done():
			return nil
		}
	}
}
