package audit_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/refusal"
)

// TestList: each filter alone, all together, and the last ones; a log that was cut is not listed as if it were whole.
func TestList(t *testing.T) {
	c := config(filepath.Join(t.TempDir(), "audit.log"), true)
	when := clock.NewFake(time.Unix(1e9, 0))
	c.Clock = when
	l, err := audit.Open(t.Context(), c)
	must(t, err)
	t.Cleanup(func() { _ = l.Close() })
	for i, verb := range []string{"attach", "key create", "key disable", "keyring", "key.deleted", "attach", "detach"} {
		_, err := l.Append(t.Context(), audit.Record{Verb: verb, UID: uint32(1000 + i%2), User: []string{"bob", "eve"}[i%2],
			Project: []string{"default", "shop", "default"}[i%3], Outcome: []string{audit.OK, audit.OK, audit.Refused}[i%3]})
		must(t, err)
		when.Advance(time.Minute)
	}
	start := time.Unix(1e9, 0)
	for _, c := range []struct {
		f    audit.Filter
		want string
	}{
		{audit.Filter{}, "1 2 3 4 5 6 7"},
		{audit.Filter{Limit: 3}, "5 6 7"},
		{audit.Filter{Limit: 100}, "1 2 3 4 5 6 7"},
		{audit.Filter{Since: start.Add(2 * time.Minute)}, "3 4 5 6 7"},
		{audit.Filter{Until: start.Add(2 * time.Minute)}, "1 2"},
		{audit.Filter{Verb: "key"}, "2 3 5"},
		{audit.Filter{Verb: "key create"}, "2"},
		{audit.Filter{Verb: "nothing"}, ""},
		{audit.Filter{User: "eve"}, "2 4 6"},
		{audit.Filter{User: "1001"}, "2 4 6"},
		{audit.Filter{Project: "shop"}, "2 5"},
		{audit.Filter{Outcome: audit.Refused}, "3 6"},
		{audit.Filter{Verb: "attach", Limit: 1}, "6"},
		{audit.Filter{User: "bob", Project: "shop", Verb: "key", Since: start, Until: start.Add(time.Hour), Outcome: audit.OK, Limit: 9}, "5"},
	} {
		var got []string
		must(t, l.Snapshot().List(t.Context(), c.f, func(line []byte) error {
			rec, err := chain.Parse(line)
			got = append(got, fmt.Sprint(rec.Seq))
			return err
		}))
		if strings.Join(got, " ") != c.want {
			t.Errorf("%+v lists %q, want %s", c.f, got, c.want)
		}
	}
	now := l.Snapshot()
	must(t, writeFile(c.Path, lines(read(t, c.Path))[:5]))
	for _, f := range []audit.Filter{{}, {Limit: 2}} {
		if err := now.List(t.Context(), f, func([]byte) error { return nil }); err == nil {
			t.Errorf("%+v: a log that was cut is listed", f)
		}
	}
	if err := now.List(t.Context(), audit.Filter{}, func([]byte) error { return nil }); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("a log that was cut: %v", err)
	}
}

// TestFollow: what was appended after the snapshot comes, once, in order, until the follower goes.
func TestFollow(t *testing.T) {
	l := open(t, written(t, 3))
	from := l.Snapshot()
	add := func(n int) {
		for range n {
			_, err := l.Append(t.Context(), audit.Record{Verb: "attach"})
			must(t, err)
		}
	}
	add(2)
	ctx, leave := context.WithCancel(t.Context())
	var got []uint64
	idle := make(chan int)
	ended := make(chan error)
	go func() {
		ended <- from.Follow(ctx, audit.Filter{Verb: "attach"}, func(line []byte) error {
			rec, err := chain.Parse(line)
			got = append(got, rec.Seq)
			return err
		}, func() error {
			select {
			case idle <- len(got):
			case <-ctx.Done():
			}
			return nil
		})
	}()
	if n := <-idle; n != 2 {
		t.Errorf("%d records at first", n)
	}
	add(1)
	for n := range idle {
		if n == 3 {
			break
		}
	}
	leave()
	if err := <-ended; err != nil || fmt.Sprint(got) != "[4 5 6]" {
		t.Errorf("followed %v, %v", got, err)
	}
}

func lines(log []byte) [][]byte { return bytes.SplitAfter(log, []byte("\n")) }

func writeFile(path string, lines [][]byte) error {
	return os.WriteFile(path, bytes.Join(lines, nil), 0o600)
}
