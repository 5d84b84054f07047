package catalogtest

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"

	"nbdcrypt/pkg/catalog"
)

// increment adds one to the number at key and does nothing else, so it may run again.
func increment(key string) func(catalog.Txn) error {
	return func(txn catalog.Txn) error {
		n := 0
		if v, err := txn.Get(key); err == nil {
			n, _ = strconv.Atoi(string(v))
		}
		return txn.Put(key, []byte(strconv.Itoa(n+1)))
	}
}

func testSerializable(t *testing.T, open Open) {
	s := opened(t, open)
	const workers, rounds = 8, 10
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			for i := range rounds {
				if err := s.Update(t.Context(), fmt.Sprintf("w%d-%d", w, i), increment("n")); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	wantDump(t, s, fmt.Sprintf("n=%d", workers*rounds))
}

func testViewIsOneRevision(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "a", "1", "b", "1")
	must(t, s.View(t.Context(), func(r catalog.Reader) error {
		a, err := r.Get("a")
		must(t, err)
		put(t, s, "a", "2", "b", "2", "c", "2")
		b, err := r.Get("b")
		must(t, err)
		pairs, err := r.Scan("", "", 10)
		if string(a) != "1" || string(b) != "1" || len(pairs) != 2 {
			t.Errorf("one view reads a=%s, b=%s, %d pairs", a, b, len(pairs))
		}
		return err
	}))
	wantDump(t, s, "a=2 b=2 c=2")
}

func testRerunSafe(t *testing.T, open Open) {
	s := Twice(opened(t, open))
	for i := range 5 {
		must(t, s.Update(t.Context(), fmt.Sprint("again-", i), increment("n")))
	}
	wantDump(t, s, "n=5")
}

func testOutcome(t *testing.T, open Open) {
	s := opened(t, open)
	put(t, s, "a", "1")
	must(t, s.Update(t.Context(), "mine", increment("n")))
	for id, want := range map[string]bool{"mine": true, "min": false, "mine2": false} {
		if got, err := s.Outcome(t.Context(), id); err != nil || got != want {
			t.Errorf("outcome of %q is %v, %v", id, got, err)
		}
	}
}

func testUnknownOutcome(t *testing.T, open Open) {
	s := NewUnknown(opened(t, open))
	for i, commits := range []bool{true, false} {
		id := fmt.Sprint("unknown-", i)
		s.Inject(commits)
		wantErr(t, s.Update(t.Context(), id, increment("n")), catalog.ErrUnknownOutcome)
		if got, err := s.Outcome(t.Context(), id); err != nil || got != commits {
			t.Errorf("outcome is %v, %v, want %v", got, err, commits)
		}
	}
	wantDump(t, s, "n=1")
}

func testRevision(t *testing.T, open Open) {
	s := opened(t, open)
	last, err := s.Revision(t.Context())
	must(t, err)
	for range 3 {
		put(t, s, "a", "1")
		now, err := s.Revision(t.Context())
		must(t, err)
		if now != last+1 {
			t.Errorf("revision goes from %d to %d", last, now)
		}
		last = now
	}
}

func testWatch(t *testing.T, open Open) {
	s := opened(t, open)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := s.Watch(ctx, "disk/")
	must(t, err)
	put(t, s, "key/1", "x")
	put(t, s, "key/2", "x", "disk/1", "x", "disk/2", "x")
	if e := <-events; e.Lost || fmt.Sprint(e.Keys) != "[disk/1 disk/2]" {
		t.Errorf("event is %+v", e)
	}
	cancel()
	for range events {
		t.Error("an event after the end")
	}
}

func testWatchLost(t *testing.T, open Open) {
	s := opened(t, open)
	events, err := s.Watch(t.Context(), "")
	must(t, err)
	for i := range 200 {
		put(t, s, fmt.Sprint("k", i), "x")
	}
	// The watcher that slept is told so, and what comes after that it hears again.
	lost := false
	for !lost {
		lost = (<-events).Lost
	}
	put(t, s, "last", "x")
	for e := range events {
		if fmt.Sprint(e.Keys) == "[last]" {
			break
		}
	}
}

func testExportImport(t *testing.T, open Open, maxValue int) {
	s := opened(t, open)
	for i := range 150 {
		put(t, s, fmt.Sprintf("k%03d", i), fmt.Sprint(i))
	}
	put(t, s, "empty", "", "large", string(make([]byte, maxValue)))
	var first, second bytes.Buffer
	must(t, s.Export(t.Context(), &first))
	for name, target := range map[string]catalog.Store{"memory": catalog.Memory()} {
		must(t, target.Import(t.Context(), bytes.NewReader(first.Bytes())))
		was, err := s.Revision(t.Context())
		must(t, err)
		if now, err := target.Revision(t.Context()); err != nil || now < was {
			t.Errorf("%s: revision went from %d to %d, %v", name, was, now, err)
		}
		must(t, target.Export(t.Context(), &second))
		skip := len("nbdcrypt-catalog 1\n") + 8
		cut := func(b []byte) []byte { return b[skip : len(b)-32] }
		if !bytes.Equal(cut(first.Bytes()), cut(second.Bytes())) {
			t.Errorf("%s: what was imported exports differently", name)
		}
	}
	if s.Import(t.Context(), bytes.NewReader(first.Bytes())) == nil {
		t.Error("a store that is not empty takes an import")
	}
}

func testDamagedStream(t *testing.T, open Open) {
	source := catalog.Memory()
	put(t, source, "a", "1", "b", "2")
	var stream bytes.Buffer
	must(t, source.Export(t.Context(), &stream))
	s := opened(t, open)
	whole := stream.Bytes()
	for n := range whole {
		wantErr(t, s.Import(t.Context(), bytes.NewReader(whole[:n])), catalog.ErrDamaged)
		bad := bytes.Clone(whole)
		bad[n] ^= 1
		wantErr(t, s.Import(t.Context(), bytes.NewReader(bad)), catalog.ErrDamaged)
	}
	wantErr(t, s.Import(t.Context(), bytes.NewReader(append(bytes.Clone(whole), 0))), catalog.ErrDamaged)
	wantDump(t, s, "")
	must(t, s.Import(t.Context(), bytes.NewReader(whole)))
}

func testClosed(t *testing.T, open Open) {
	s := open()
	put(t, s, "a", "1")
	events, err := s.Watch(t.Context(), "")
	must(t, err)
	must(t, s.Close())
	for range events {
		t.Error("an event from a closed store")
	}
	ctx := t.Context()
	_, errOutcome := s.Outcome(ctx, "x")
	_, errRevision := s.Revision(ctx)
	_, errWatch := s.Watch(ctx, "")
	for _, err := range []error{
		s.View(ctx, func(catalog.Reader) error { return nil }),
		s.Update(ctx, "x", func(catalog.Txn) error { return nil }),
		s.Export(ctx, &bytes.Buffer{}), errOutcome, errRevision, errWatch,
	} {
		wantErr(t, err, catalog.ErrClosed)
	}
	must(t, s.Close())
}

func testReopen(t *testing.T, open Open) {
	s := open()
	put(t, s, "a", "1", "empty", "")
	must(t, s.Update(t.Context(), "before", increment("n")))
	revision, err := s.Revision(t.Context())
	must(t, err)
	must(t, s.Close())
	for range 3 {
		s = open()
		wantDump(t, s, "a=1 empty= n=1")
		now, err := s.Revision(t.Context())
		if err != nil || now != revision {
			t.Errorf("revision went from %d to %d, %v", revision, now, err)
		}
		if found, err := s.Outcome(t.Context(), "before"); err != nil || !found {
			t.Errorf("outcome is %v, %v", found, err)
		}
		must(t, s.Close())
	}
}
