package daemon

import (
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

// Rule C7: what a dry run predicts is what happens, to attached disks and to others, and what it says undoes it does.
func TestRuleC7_PredictionIsWhatHappens(t *testing.T) {
	for _, c := range []struct {
		verb, query string
		before      string // what is done to the key first
		do          func(t *testing.T, d *Daemon)
		undo        func(t *testing.T, d *Daemon)
		undoSays    string
		state       string
	}{
		{"disable", "", "", keyDoes(control.RouteKeyDisable, ""), keyDoes(control.RouteKeyEnable, ""),
			"nbdcrypt key enable mine --project default", "Disabled"},
		{"schedule-deletion", "&days=7", "", keyDoes(control.RouteKeySchedule+"?yes=true", `{"days":7}`), keyDoes(control.RouteKeyCancel, `{"enable":true}`),
			"nbdcrypt key cancel-deletion mine --project default --enable", "Pending deletion"},
		{"schedule-deletion", "&days=7", control.RouteKeyDisable, keyDoes(control.RouteKeySchedule+"?yes=true", `{"days":7}`), keyDoes(control.RouteKeyCancel, `{}`),
			"nbdcrypt key cancel-deletion mine --project default", "Pending deletion"},
		{"disable", "", control.RouteKeyDisable, keyDoes(control.RouteKeyDisable, ""), nil, "", "Disabled"},
		{"delete", "", control.RouteKeySchedule + "?yes=true", keyDoes(control.RouteKeyDelete+"?yes=true", ""), nil, "", "Deleted"},
	} {
		t.Run(c.verb+" after "+c.before, func(t *testing.T) {
			d, clock, _ := onClock(t)
			mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"mine"}`)
			for i := range 3 {
				mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", fmt.Sprintf(`{"name":"d%d","size":1048576,"key":"mine"}`, i))
			}
			mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"another","size":1048576,"encrypted":true}`)
			mustAsk[control.Attached](t, d, control.RouteAttach, "d0", "{}")
			usable := c.before == ""
			if !usable {
				keyDoes(c.before, `{"days":7}`)(t, d)
				clock.Advance(8 * day)
			}
			records := d.log.Head().Seq
			p := mustAsk[control.Prediction](t, d, control.RouteKeyPredict+"?verb="+c.verb+c.query, "mine", "")
			if p.State != c.state || p.Undo != c.undoSays || len(p.Effects) != 3 || p.Verb != c.verb || p.Key.Alias != "mine" {
				t.Fatalf("it predicts %+v", p)
			}
			if d.log.Head().Seq != records+1 {
				t.Error("a dry run leaves other than one record")
			}
			date := clock.Now().Add(7 * day)
			if (p.Date != nil) != (c.query != "") || p.Date != nil && !p.Date.Equal(date) {
				t.Errorf("it predicts the date %v", p.Date)
			}
			could := attachable(t, d, p)
			c.do(t, d)
			if s := state(t, d, "mine"); s != c.state && (s != "" || c.state != "Deleted") {
				t.Errorf("the key is %q, predicted %q", s, p.State)
			}
			happened(t, d, p, could)
			if c.undo != nil {
				c.undo(t, d)
				if got := attachable(t, d, p); (got == len(p.Effects)) != usable {
					t.Errorf("undone, %d of %d attach", got, len(p.Effects))
				}
			}
		})
	}
}

// keyDoes does a verb to the key "mine".
func keyDoes(route, body string) func(*testing.T, *Daemon) {
	return func(t *testing.T, d *Daemon) {
		t.Helper()
		if status, text := d.call(t, strings.ReplaceAll(route, "{key}", "mine"), nbd.Peer{}, body); status >= 300 {
			t.Fatalf("%s answers %d %s", route, status, text)
		}
	}
}

// attachable counts the disks that are attached, or can be.
func attachable(t *testing.T, d *Daemon, p control.Prediction) (n int) {
	for _, e := range p.Effects {
		v := mustAsk[control.Disk](t, d, control.RouteDiskShow, e.Name, "")
		if len(v.Attachments) > 0 {
			n++
			continue
		}
		if status, _ := asks[control.Attached](t, d, control.RouteAttach, e.Name, "{}"); status == http.StatusOK {
			n++
			mustAsk[control.Detached](t, d, control.RouteDetach+"?yes=true", e.Name, "")
		}
	}
	return n
}

// happened holds the effects against what is so after the verb. before is how many could be attached, or were.
func happened(t *testing.T, d *Daemon, p control.Prediction, before int) {
	t.Helper()
	var now int
	for _, e := range p.Effects {
		if e.From == nil {
			now++
		}
		v := mustAsk[control.Disk](t, d, control.RouteDiskShow, e.Name, "")
		if e.ID != v.ID || e.Attached != (len(v.Attachments) > 0) || (e.IO == control.IOUntilDetach) != e.Attached || len(v.Warnings) == 0 {
			t.Errorf("predicted %+v, it is %+v", e, v)
		}
		if e.Attached {
			a := d.attachments()[0]
			buf := make([]byte, 4096)
			if _, err := a.Device.WriteAt(buf, 0); err != nil {
				t.Errorf("%s does not go on: %v", e.Name, err)
			}
			// A23: its detach asks, and says that it does not come back.
			refused(t, d, refusal.Confirm, control.RouteDetach, e.Name, "")
			mustAsk[control.Detached](t, d, control.RouteDetach+"?yes=true", e.Name, "")
		}
		r := refused(t, d, refusal.KeyForbids, control.RouteAttach, e.Name, "{}")
		if never := r.Message[len(r.Message)-7:] == "deleted"; never != (e.Attach == control.AttachNever) {
			t.Errorf("%s: predicted %s, refused with %q", e.Name, e.Attach, r.Message)
		}
	}
	if p.State != "Deleted" && (now == 0) != (before == len(p.Effects)) {
		t.Errorf("%d of %d are said to be refused already, and %d could be attached", now, len(p.Effects), before)
	}
}

// A dry run of what would be refused is refused the same.
func TestRuleC7_RefusalIsPredicted(t *testing.T) {
	d, _, _ := onClock(t)
	mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"mine"}`)
	for _, c := range []struct {
		key, query, route, body string
		code                    refusal.Code
	}{
		{"evs%2Fdefault", "disable", control.RouteKeyDisable, "", refusal.KeyForbids},
		{"evs%2Fdefault", "schedule-deletion&days=7", control.RouteKeySchedule, `{"days":7}`, refusal.KeyForbids},
		{"mine", "schedule-deletion&days=6", control.RouteKeySchedule, `{"days":6}`, refusal.Usage},
		{"mine", "delete", control.RouteKeyDelete, "", refusal.KeyForbids},
		{"none", "disable", control.RouteKeyDisable, "", refusal.NotFound},
	} {
		foretold := refused(t, d, c.code, control.RouteKeyPredict+"?verb="+c.query, c.key, "")
		for _, yes := range []string{"", "?yes=true"} {
			if got := refused(t, d, c.code, c.route+yes, c.key, c.body); got != foretold {
				t.Errorf("%s of %s: predicted %+v, refused with %+v", c.query, c.key, foretold, got)
			}
		}
	}
	refused(t, d, refusal.Usage, control.RouteKeyPredict+"?verb=enable", "mine", "")
	refused(t, d, refusal.Usage, control.RouteKeyPredict+"?verb=schedule-deletion", "mine", "")
}

// A23: what a detach says for each state of the key, and how it is undone.
func TestRuleA23_DetachSaysWhatTheStateMeans(t *testing.T) {
	d, clock, _ := onClock(t)
	mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"mine"}`)
	mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"d","size":1048576,"key":"mine"}`)
	mustAsk[control.Attached](t, d, control.RouteAttach, "d", "{}")
	wants := func(message, hint string) {
		t.Helper()
		e := refused(t, d, refusal.Confirm, control.RouteDetach, "d", "")
		shown := mustAsk[control.Disk](t, d, control.RouteDiskShow, "d", "")
		if !strings.Contains(e.Message, message) || !strings.Contains(e.Hint, hint) || len(shown.Warnings) != 1 || !strings.Contains(shown.Warnings[0], message) {
			t.Errorf("%+v, and the disk shows %q", e, shown.Warnings)
		}
	}
	keyDoes(control.RouteKeyDisable, "")(t, d)
	wants("is Disabled", "key enable mine")
	keyDoes(control.RouteKeySchedule+"?yes=true", `{"days":7}`)(t, d)
	wants("is Pending deletion: it is destroyed on "+clock.Now().Add(7*day).Format(time.RFC3339), "cancel-deletion mine")
	clock.Advance(7 * day)
	d.lookAtDue(t.Context())
	wants("is deleted", "")
	if status, _ := d.call(t, "POST /v1/disks/d/detach?yes=true", nbd.Peer{}, ""); status != http.StatusOK {
		t.Errorf("with a yes: %d", status)
	}
}

// A key whose record is damaged is not said to be deleted: its disk may come back with a backup.
func TestDamagedKeyIsNotCalledDeleted(t *testing.T) {
	d, _, _ := onClock(t)
	k := mustAsk[control.Key](t, d, control.RouteKeyCreate, "", `{"alias":"mine"}`)
	mustAsk[control.Disk](t, d, control.RouteDiskCreate, "", `{"name":"d","size":1048576,"key":"mine"}`)
	mustAsk[control.Attached](t, d, control.RouteAttach, "d", "{}")
	err := d.catalog.Update(t.Context(), "damage", func(txn catalog.Txn) error { return txn.Put("key/default/"+k.ID, []byte("{}")) })
	if err != nil {
		t.Fatal(err)
	}
	v := mustAsk[control.Disk](t, d, control.RouteDiskShow, "d", "")
	if v.Key.State != "Damaged" || len(v.Warnings) != 1 || !strings.Contains(v.Warnings[0], "is damaged") {
		t.Errorf("%+v, warnings %q", v.Key, v.Warnings)
	}
	if e := refused(t, d, refusal.Confirm, control.RouteDetach, "d", ""); strings.Contains(e.Message, "never") || !strings.Contains(e.Message, "damaged") {
		t.Errorf("%+v", e)
	}
}
