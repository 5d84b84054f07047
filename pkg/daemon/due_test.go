package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// again opens another daemon on the state directory of one that is closed with it.
func again(t *testing.T, d *Daemon) *Daemon {
	t.Helper()
	o := d.o
	d.close()
	d.root, d.locks = nil, nil
	next := newDaemon(o)
	t.Cleanup(next.close)
	t.Cleanup(func() { _ = next.jobs.Shutdown(context.Background()) })
	if err := next.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	return next
}

// scheduled makes a key with a disk under it, and schedules its deletion.
func scheduled(t *testing.T, d *Daemon, alias string, days string) {
	t.Helper()
	mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"`+alias+`"}`)
	mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"on-`+alias+`","size":1048576,"key":"`+alias+`"}`)
	k := mustAsk[control.Key](t, d, control.RouteKeySchedule+"?yes=true", alias, `{"days":`+days+`}`)
	if k.State != "Pending deletion" || k.DeletionDate == nil {
		t.Fatalf("%+v", k)
	}
}

// state is the state of a key, empty where there is none any more.
func state(t *testing.T, d *Daemon, alias string) string {
	t.Helper()
	_, k := asks[control.Key](t, d, control.RouteKeyShow, alias, "")
	return k.State
}

// refused makes a call that must be refused, and returns the refusal.
func refused(t *testing.T, d *Daemon, code refusal.Code, route, name, body string) control.Error {
	t.Helper()
	before, after, found := strings.Cut(route, "{")
	if found {
		_, after, _ = strings.Cut(after, "}")
		before += name
	}
	_, text := d.call(t, before+after, nbd.Peer{}, body)
	var e control.ErrorBody
	if err := json.Unmarshal([]byte(text), &e); err != nil || e.Error == nil || e.Error.Code != int(code) {
		t.Fatalf("%s of %q: %s, want code %d", route, name, text, code)
	}
	return *e.Error
}

// B1: a key is destroyed at its date, once, by the daemon that runs then, and by the next start where none ran.
func TestRuleB1_DestroyedAtItsDate(t *testing.T) {
	d, c, said := onClock(t)
	scheduled(t, d, "while-it-runs", "7")
	scheduled(t, d, "while-it-is-down", "8")
	c.Advance(7*day - time.Second)
	d.lookAtDue(t.Context())
	if state(t, d, "while-it-runs") != "Pending deletion" {
		t.Fatal("it is destroyed before its date")
	}
	c.Advance(time.Second)
	for range 3 {
		d.lookAtDue(t.Context())
	}
	if s := state(t, d, "while-it-runs"); s != "" || d.recorded(t, "key.deleted", "ok") != 1 || strings.Count(said.String(), "event=key-deleted") != 1 {
		t.Errorf("on its date it is %q, %d records, and said is %s", s, d.recorded(t, "key.deleted", "ok"), said)
	}
	// A20 and A21: nothing attaches what is under it, and the disk can still be deleted.
	for range 2 {
		if e := refused(t, d, refusal.KeyForbids, control.RouteAttach, "on-while-it-runs", "{}"); !strings.Contains(e.Message, "deleted") {
			t.Errorf("%+v", e)
		}
		d = again(t, d)
	}
	if state(t, d, "while-it-is-down") != "Pending deletion" {
		t.Fatal("the other one is destroyed too")
	}
	d.close()
	c.Advance(20 * day)
	d = again(t, d)
	if s := state(t, d, "while-it-is-down"); s != "" || d.recorded(t, "key.deleted", "ok") != 2 {
		t.Errorf("after a start 19 days late it is %q", s)
	}
	if status, _ := d.call(t, "DELETE /v1/disks/on-while-it-runs?yes=true", nbd.Peer{}, ""); status != http.StatusNoContent {
		t.Errorf("deleting the disk: %d", status)
	}
}

// B16: what is destroyed by a start, since a run before it was cut off in that, is recorded and told of too.
func TestRuleB16_FinishedByAStart(t *testing.T) {
	d, _, said := onClock(t)
	scheduled(t, d, "mine", "7")
	k := mustAsk[control.Key](t, d, control.RouteKeyShow, "mine", "")
	err := d.catalog.Update(t.Context(), newRequest(), func(txn catalog.Txn) error { // the first step of its deletion
		name, rec := "key/default/"+k.ID, map[string]any{}
		b, err := txn.Get(name)
		if err == nil {
			err = json.Unmarshal(b, &rec)
		}
		rec["state"] = "Deleting"
		delete(rec, "deletion")
		if b, err = json.Marshal(rec); err != nil {
			return err
		}
		return errors.Join(txn.Put(name, b), txn.Delete("alias/local/default/mine"))
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d = again(t, d)
		_, list := d.call(t, control.RouteAuditList+"?verb=key.deleted", nbd.Peer{}, "")
		if strings.Count(list, `"key_id":"`+k.ID) != 1 || strings.Count(said.String(), "event=key-deleted") != 1 {
			t.Errorf("recorded is %s, and said %s", list, said)
		}
	}
}

// B3: a clock that is set back undeletes nothing, and new dates are counted from the latest time that was seen.
func TestRuleB3_ClockSetBack(t *testing.T) {
	d, c, _ := onClock(t)
	scheduled(t, d, "first", "7")
	c.Advance(8 * day)
	d.lookAtDue(t.Context())
	seen := c.Now()
	c.Advance(-300 * day)
	d = again(t, d)
	if s := state(t, d, "first"); s != "" {
		t.Errorf("set back, a deleted key is %q", s)
	}
	scheduled(t, d, "second", "7")
	k := mustAsk[control.Key](t, d, control.RouteKeyShow, "second", "")
	if !k.DeletionDate.Equal(seen.Add(7 * day)) {
		t.Errorf("its date is %v, counted from before what was seen (%v)", k.DeletionDate, seen)
	}
	d.lookAtDue(t.Context())
	show := mustAsk[control.Clock](t, d, control.RouteClockShow, "", "")
	if show.State != control.ClockBehind || show.By != int64((300*day).Seconds()) || !show.Latest.Equal(seen) || len(show.Due) != 0 {
		t.Errorf("%+v", show)
	}
	if w := d.clockWarnings(); len(w) != 1 || !strings.Contains(w[0], "behind") {
		t.Errorf("warnings %q", w)
	}
	// Accepted, it is the time: what is scheduled waits until then.
	if show = mustAsk[control.Clock](t, d, control.RouteClockAccept, "", ""); show.State != control.ClockRight || !show.Latest.Equal(c.Now()) {
		t.Errorf("accepted: %+v", show)
	}
	if s := state(t, d, "second"); s != "Pending deletion" {
		t.Errorf("accepted, the key is %q", s)
	}
}

// B3: far forward, nothing is destroyed unasked: one key by a yes of its own, all that are due by accepting the clock.
func TestRuleB3_ClockFarForward(t *testing.T) {
	d, c, said := onClock(t)
	for _, alias := range []string{"one", "two", "later"} {
		scheduled(t, d, alias, map[string]string{"one": "7", "two": "8", "later": "1000"}[alias])
	}
	c.Advance(31 * day)
	for range 2 {
		d.lookAtDue(t.Context())
		if state(t, d, "one") == "" || state(t, d, "two") == "" {
			t.Fatal("destroyed by a clock that is far ahead")
		}
		d = again(t, d)
	}
	show := mustAsk[control.Clock](t, d, control.RouteClockShow, "", "")
	if show.State != control.ClockAhead || show.By < int64((30*day).Seconds()) || len(show.Due) != 2 {
		t.Errorf("%+v", show)
	}
	status := mustAsk[control.Status](t, d, control.RouteStatus, "", "")
	if !strings.Contains(strings.Join(status.Warnings, "\n"), "`nbdcrypt clock accept`") {
		t.Errorf("status warns %q", status.Warnings)
	}
	refused(t, d, refusal.KeyForbids, control.RouteKeyDelete+"?yes=true", "later", "")
	e := refused(t, d, refusal.Confirm, control.RouteKeyDelete, "one", "")
	if !strings.Contains(e.Message, "disk on-one is under it") {
		t.Errorf("%+v", e)
	}
	if status, body := d.call(t, "DELETE /v1/keys/one?yes=true", nbd.Peer{}, ""); status != http.StatusNoContent || state(t, d, "one") != "" {
		t.Errorf("with a yes: %d %s", status, body)
	}
	if state(t, d, "two") == "" {
		t.Error("the other went with it")
	}
	e = refused(t, d, refusal.Confirm, control.RouteClockAccept, "", "")
	if !strings.Contains(e.Message, "two of project default") || strings.Contains(e.Message, "later") {
		t.Errorf("%+v", e)
	}
	if state(t, d, "two") == "" {
		t.Error("destroyed before the yes")
	}
	show = mustAsk[control.Clock](t, d, control.RouteClockAccept+"?yes=true", "", "")
	if show.State != control.ClockRight || len(show.Due) != 0 || state(t, d, "two") != "" || state(t, d, "later") != "Pending deletion" {
		t.Errorf("accepted: %+v, two is %q, later %q", show, state(t, d, "two"), state(t, d, "later"))
	}
	if n := strings.Count(said.String(), "event=key-deleted"); n != 2 {
		t.Errorf("%d deletions were told of", n)
	}
}

// A deletion that is near is told of once a day, from NotifyDays on.
func TestDeletionIsToldOf(t *testing.T) {
	d, c, said := onClock(t)
	scheduled(t, d, "mine", "10")
	for day, want := range []int{0, 0, 0, 1, 2, 3} {
		for range 3 {
			d.lookAtDue(t.Context())
		}
		if n := strings.Count(said.String(), "event=deletion-due"); n != want {
			t.Errorf("after %d days it was told of %d times, want %d", day, n, want)
		}
		c.Advance(24 * time.Hour)
	}
	mustAsk[control.Key](t, d, control.RouteKeyCancel, "mine", `{}`)
	said.Reset()
	d.lookAtDue(t.Context())
	if said.Len() > 0 {
		t.Errorf("cancelled, it is told of: %s", said)
	}
}

// What is due and can't be done is warned of until it is done or due no more; the metric counts what status shows.
func TestWarningsOfWhatIsDue(t *testing.T) {
	d, c, _ := onClock(t)
	scheduled(t, d, "mine", "7")
	before := len(d.allWarnings())
	counted := func(want int) {
		t.Helper()
		if list := d.allWarnings(); len(list) != before+want {
			t.Errorf("warned of %q", list)
		}
		if _, text := d.call(t, control.RouteMetrics, nbd.Peer{}, ""); !strings.Contains(text, fmt.Sprintf("nbdcrypt_warnings %d\n", before+want)) {
			t.Errorf("the metric is not %d", before+want)
		}
	}
	c.Advance(31 * day)
	counted(1) // the clock
	c.Advance(-24 * day)
	counted(0)
	if err := d.log.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		d.lookAtDue(t.Context())
	}
	if all := strings.Join(d.allWarnings(), "\n"); !strings.Contains(all, "it is tried again") {
		t.Errorf("what is not done is warned of as %q", all)
	}
	if _, err := d.keys.CancelDeletion(t.Context(), newRequest(), "default", "mine", false); err != nil {
		t.Fatal(err)
	}
	d.lookAtDue(t.Context())
	if all := strings.Join(d.allWarnings(), "\n"); strings.Contains(all, "it is tried again") {
		t.Errorf("due no more, it is warned of: %q", all)
	}
}

// A time that could not be kept is not recorded as kept.
func TestTimeThatIsNotKept(t *testing.T) {
	d, c, _ := onClock(t)
	before := d.recorded(t, "clock.kept", "ok")
	ended, end := context.WithCancel(t.Context())
	end()
	for want, ctx := range []context.Context{ended, t.Context()} {
		c.Advance(2 * time.Hour)
		d.lookAtDue(ctx)
		if n := d.recorded(t, "clock.kept", "ok") - before; n != want {
			t.Errorf("%d records, want %d", n, want)
		}
	}
}

// The running daemon looks by itself, and stops with the rest.
func TestDaemonWatchesWhatIsDue(t *testing.T) {
	d, c, _ := onClock(t)
	scheduled(t, d, "mine", "7")
	d.watching.Go(func() { d.watchDue(time.Millisecond) })
	c.Advance(7 * day)
	for end := time.Now().Add(time.Minute); state(t, d, "mine") != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("it is there still")
		}
	}
	d.close()
	d.root, d.locks = nil, nil
}
