package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
)

// ask is a call of the API.
type ask struct {
	who   uint32
	route string
	name  string // what stands for the {…} of the route
	query []string
	body  any
	// keys are what the call is about, of which a grant could allow it.
	keys  []*modelKey
	quiet bool // it is played after each move
	// also is how many records of parts of it come before its own, where it is done, and alsoRefused where it is not.
	also, alsoRefused int
	// uncounted leaves it to the move to count the records.
	uncounted bool
}

// about is the call with the keys that it is about.
func (a ask) about(keys ...*modelKey) ask {
	a.keys = keys
	return a
}

func (a ask) with(query ...string) ask {
	a.query = append(slices.Clip(a.query), query...)
	return a
}

func (a ask) request(id string) *http.Request {
	method, path, _ := strings.Cut(a.route, " ")
	if from, to := strings.IndexByte(path, '{'), strings.IndexByte(path, '}'); from >= 0 {
		path = path[:from] + url.PathEscape(a.name) + path[to+1:]
	}
	if len(a.query) > 0 {
		path += "?" + strings.Join(a.query, "&")
	}
	var body io.Reader
	if a.body != nil {
		b, _ := json.Marshal(a.body)
		body = bytes.NewReader(b)
	}
	req := httptest.NewRequest(method, path, body)
	req.Header.Set(control.HeaderRequest, id)
	return req.WithContext(context.WithValue(req.Context(), peerKey{}, nbd.Peer{UID: a.who}))
}

// yes confirms.
const yes = control.QueryYes + "=true"

// play makes a call and holds the exit code against what the model says speaks against it. It returns the answer of a call
// that is done. Each call leaves one record in the audit log, and changes nothing when it is sent again.
func (g *game) play(a ask, against against) (answer []byte, done bool) {
	g.rt.Helper()
	if !a.quiet && a.route != control.RouteProjectSet && !g.ofStore(a) && g.oneIn(20, "elsewhere") {
		g.elsewhere(a)
	}
	if !g.may(a) {
		against, a.alsoRefused = refuses(5), 0
	}
	id := newRequest()
	code, answer := g.send(a, id)
	if !a.quiet {
		g.rt.Logf("%d: %s %s %v %s: %d", a.who, a.route, a.name, a.query, mustJSON(a.body), code)
	}
	if !against.allows(code) {
		g.failf("exit code %d, want %v: %s", code, against, answer)
	}
	g.audited(a, code, toldUnclean(a, code, answer))
	if !a.quiet {
		g.played[fmt.Sprintf("%s: %d", g.routeOf(a).verb, code)]++
	}
	if g.routeOf(a).is(changes) && g.oneIn(8, "sent again") {
		g.sendAgain(a, id, code, answer)
	}
	return answer, code == 0
}

// sendAgain sends a call with the id that it had: it gets the same answer, and nothing is done.
func (g *game) sendAgain(a ask, id string, code int, answer []byte) {
	before := g.d.log.Head().Seq
	if again, same := g.send(a, id); again != code || !bytes.Equal(same, answer) {
		g.failf("sent again, it is answered with %d: %s", again, same)
	}
	if after := g.d.log.Head().Seq; after != before {
		g.failf("sent again, it left %d records", after-before)
	}
}

func mustJSON(v any) []byte {
	if v == nil {
		return nil
	}
	b, _ := json.Marshal(v)
	return b
}

// send makes a call, and waits for the job that it may have started.
func (g *game) send(a ask, id string) (code int, body []byte) {
	w := newTaker()
	g.api.ServeHTTP(w, a.request(id))
	status, body := w.answer()
	if status == http.StatusAccepted {
		return g.await(decode[control.Job](g, body).ID)
	}
	if status < 300 {
		return 0, body
	}
	var refused control.ErrorBody
	if err := json.Unmarshal(body, &refused); err != nil || refused.Error == nil {
		g.failf("%s is answered with %d: %s", a.route, status, body)
	}
	return refused.Error.Code, body
}

// await waits for the end of a job.
func (g *game) await(id string) (code int, result []byte) {
	for after := uint64(0); ; {
		j, err := g.d.jobs.Get(background, id, after, time.Minute)
		switch {
		case err != nil:
			g.failf("%v", err)
		case j.Error != nil:
			return j.Error.Code, mustJSON(j.Error)
		case j.State == control.JobDone:
			return 0, mustJSON(j.Result)
		}
		after = j.Revision
	}
}

func (g *game) routeOf(a ask) route {
	for _, r := range routes {
		if r.pattern == a.route {
			return r
		}
	}
	g.failf("there is no route %s", a.route)
	return route{}
}

// toldUnclean is how many records come after that of a call: one of an attach that says that writes may be lost.
func toldUnclean(a ask, code int, answer []byte) (after int) {
	var out control.Attached
	if a.route == control.RouteAttach && code == 0 && json.Unmarshal(answer, &out) == nil && out.Unclean && !out.ReadOnly {
		after = 1
	}
	return after
}

// audited holds the log against a call: one record more, which tells who did what and how it ended, and others after it.
func (g *game) audited(a ask, code, after int) {
	g.rt.Helper()
	also := a.also
	if code != 0 {
		also = a.alsoRefused
	}
	if !a.uncounted {
		g.recorded(also + 1 + after)
	}
	if rec := g.lastRecord(0); after > 0 && rec.Verb != "disk.unclean" {
		g.failf("%+v is recorded of an attach that says that writes may be lost", rec)
	}
	rec := g.lastRecord(after)
	outcome := audit.OK
	if code != 0 {
		outcome = audit.Refused
	}
	if rec.UID != a.who || rec.Verb != g.routeOf(a).verb || rec.Outcome != outcome || rec.Code != code {
		g.failf("%s by %d, which ended with %d, is recorded as %+v", a.route, a.who, code, rec)
	}
}

// recorded holds the number of records that the audit log has got against how many there should be.
func (g *game) recorded(want int) {
	g.rt.Helper()
	head := g.d.log.Head().Seq
	if head != g.head+uint64(want) {
		g.failf("%d records more are in the audit log, want %d; the last: %s", head-g.head, want, g.lastRecords())
	}
	g.head = head
}

// lastRecord is the last record, but for some after it.
func (g *game) lastRecord(after int) (rec audit.Record) {
	lines := bytes.Split(bytes.TrimSuffix(g.lastRecords(), []byte("\n")), []byte("\n"))
	if err := json.Unmarshal(lines[len(lines)-1-after], &rec); err != nil {
		g.failf("the last record of the audit log: %v", err)
	}
	return rec
}

// lastRecords is the end of the audit log.
func (g *game) lastRecords() []byte {
	f, err := os.Open(filepath.Join(g.o.State, keystore.AuditFile))
	if err != nil {
		g.failf("%v", err)
	}
	defer f.Close()
	size, _ := f.Seek(0, io.SeekEnd)
	tail := make([]byte, min(size, 8<<10))
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil {
		g.failf("%v", err)
	}
	return tail
}

// failf says what is wrong. rapid takes two failures for the same only if they say the same, so that ids are told beside that: else
// nothing could be shrunk.
func (g *game) failf(format string, args ...any) {
	g.rt.Helper()
	g.rt.Logf(format, args...)
	g.rt.Fatal("the daemon is not as the model is; the line before says how")
}

func decode[T any](g *game, b []byte) (v T) {
	g.rt.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		g.failf("%v in %s", err, b)
	}
	return v
}
