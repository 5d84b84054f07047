package daemon

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os/user"
	"runtime/debug"
	"strconv"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

var errPanicked = errors.New("daemon: the call ended in a panic; the log has the place")

// call is one call of the control API: who asks what.
type call struct {
	ctx     context.Context
	http    *http.Request
	caller  access.Caller
	pid     int32
	request string
	project string
	// body is the digest of what came with the call.
	body control.Digest
	// started tells that the call is answered with a job, though its route is not always.
	started bool
	// recorded tells that the audit has this call already: a key was released in it.
	recorded bool
	// slot is what opened the root key in it.
	slot string
	// asker asks for the passphrase that follows the call, where its route says that one does.
	asker *control.Asker
}

// disk is the disk that the path names.
func (c *call) disk() string { return c.http.PathValue("disk") }

// yes tells whether the caller has confirmed.
func (c *call) yes() bool { return c.http.URL.Query().Get(control.QueryYes) == "true" }

// peerKey is where a connection's context keeps who is at its other end.
type peerKey struct{}

// newAPI makes the server of the control API.
func (d *Daemon) newAPI() *http.Server {
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.Handle(r.pattern, d.handler(r))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		control.WriteError(w, refusal.New(refusal.Usage, "use a client of this daemon's version", "there is no call %.20s %.200q", r.Method, r.URL.Path))
	})
	present := newGuests()
	return &http.Server{
		Handler: whole(mux), DisableGeneralOptionsHandler: true, ConnState: present.follow,
		ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			peer, err := nbd.PeerOf(c)
			if err != nil {
				d.o.Log.Error("a caller without credentials", "err", err)
				return ctx
			}
			if !present.admit(c, peer) {
				_ = c.Close() // what the server reads from it then is its end
			}
			return context.WithValue(ctx, peerKey{}, peer)
		},
	}
}

// bodyKey is where a request's context keeps the digest of its body.
type bodyKey struct{}

// whole takes the body of every request, also of one that no route wants, before anything else looks at it.
func whole(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		digest, err := control.TakeBody(w, r)
		if err != nil {
			control.WriteError(w, err)
			return
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), bodyKey{}, digest)))
	})
}

// callOf tells who asks; a connection whose peer the kernel did not name is refused.
func (d *Daemon) callOf(r *http.Request) (*call, error) {
	peer, ok := r.Context().Value(peerKey{}).(nbd.Peer)
	if !ok {
		return nil, refusal.New(refusal.Denied, "connect over the control socket", "nobody knows who is calling")
	}
	c := &call{ctx: r.Context(), http: r, caller: d.callerOf(peer.UID), pid: peer.PID,
		request: r.Header.Get(control.HeaderRequest), project: r.URL.Query().Get(control.QueryProject)}
	c.body, _ = r.Context().Value(bodyKey{}).(control.Digest)
	if c.request == "" {
		c.request = newRequest()
	}
	if len(c.request) > 64 {
		return nil, refusal.New(refusal.Usage, "send a UUID", "the request id is longer than 64 bytes")
	}
	if c.project == "" {
		c.project = control.DefaultProject
	}
	return c, nil
}

// callerOf names a user; one that the system does not know has a number only.
func (d *Daemon) callerOf(uid uint32) access.Caller {
	c := access.Caller{UID: uid, User: strconv.FormatUint(uint64(uid), 10)}
	if u, err := user.LookupId(c.User); err == nil {
		c.User = u.Username
	}
	return c
}

// handler answers one route: it asks access, does the verb, records it, and answers.
func (d *Daemon) handler(r route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		c, err := d.callOf(req)
		if err != nil {
			control.WriteError(w, err)
			return
		}
		if r.is(passphrase) {
			d.asking.Add(1) // the HTTP server will not wait for a connection that was taken from it
			defer d.asking.Done()
			c.asker = control.NewAsker(w, req)
			defer c.asker.Close()
			w = c.asker
		}
		if err := d.pace.wait(req.Context(), c.caller.UID); err != nil {
			control.WriteError(w, err)
			return
		}
		status, body, err := d.answer(r, c)
		if err != nil {
			control.WriteError(w, err)
			return
		}
		if answer, is := body.(*secretAnswer); is {
			if err := answer.send(w); err != nil {
				d.o.Log.Error("an escrowed key did not reach its caller", "err", err)
			}
			return
		}
		if answer, is := body.(http.Handler); is {
			answer.ServeHTTP(w, req)
			return
		}
		control.WriteJSON(w, status, body)
	})
}

// answer does a call once, however often it is sent.
func (d *Daemon) answer(r route, c *call) (int, any, error) {
	if !r.is(changes) {
		return d.perform(r, c)
	}
	// What was begun is brought to its end and recorded, also when the caller goes away meanwhile.
	c.ctx = context.WithoutCancel(c.ctx)
	key := replayKey{c.caller.UID, c.request, c.http.Method + " " + c.http.URL.RequestURI(), c.body}
	return d.replays.once(key, func() (int, any, error) { return d.perform(r, c) })
}

func (d *Daemon) perform(r route, c *call) (status int, body any, err error) {
	err = d.mayAsk(r, c)
	if d.stranger(c) && (err != nil || r.action == access.StatusShow) {
		d.pace.charge(c.caller.UID)
	}
	if err == nil {
		body, err = d.do(r, c)
	}
	if r.verb != "" && !c.recorded && (err != nil || !r.is(quiet)) {
		d.record(c, r.verb, c.resource(), err)
	}
	switch {
	case err != nil:
		return 0, nil, err
	case body == nil:
		return http.StatusNoContent, nil, nil
	case r.is(job), c.started:
		return http.StatusAccepted, body, nil
	}
	return http.StatusOK, body, nil
}

// rights is who may do what, as far as that can be known.
func (d *Daemon) rights() *access.Access {
	if d.isOpen.Load() {
		return d.access
	}
	return access.Closed(d.self)
}

// mayAsk refuses what the caller may not do, and before the root key was ever open all that needs the catalog.
func (d *Daemon) mayAsk(r route, c *call) error {
	if !d.isOpen.Load() {
		// Of what only looks, or finds the door shut, nothing is kept for the log.
		c.recorded = !r.is(closed) || r.action == access.StatusShow
		if !r.is(closed) {
			return notOpen()
		}
	}
	return d.rights().Check(c.ctx, c.caller, r.action, c.project)
}

// do does the verb. One that panics has failed, and is recorded like any other.
func (d *Daemon) do(r route, c *call) (body any, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.o.Log.Error("panic in a call", "route", r.pattern, "panic", p, "stack", string(debug.Stack()))
			body, err = nil, errPanicked
		}
	}()
	return r.do(d, c)
}

// stranger tells a caller who is neither root nor the daemon's own user.
func (d *Daemon) stranger(c *call) bool { return c.caller.UID != 0 && c.caller.UID != d.self.UID }

// resource is what a call is about, as it named it.
func (c *call) resource() string {
	for _, name := range []string{"disk", "key", "job", "slot"} {
		if v := c.http.PathValue(name); v != "" {
			return cut(v)
		}
	}
	if c.slot != "" {
		return c.slot
	}
	return cut(c.http.URL.Query().Get(control.QueryName))
}

// cut keeps what a caller sent from filling the log.
func cut(s string) string {
	if len(s) > 300 {
		return s[:300] + "…"
	}
	return s
}

// record puts a verb into the audit log. It is done by then: where the log can't be written that is said loudly, and no
// key is released any more, but a person can still detach and delete.
func (d *Daemon) record(c *call, verb, resource string, err error) {
	rec := recordOf(c, verb, resource, err)
	if d.kept.keep(rec, d.stranger(c)) {
		return
	}
	if e := d.write(c.ctx, rec); e != nil {
		d.cantRecord(rec, e)
	}
}

func (d *Daemon) cantRecord(rec audit.Record, err error) {
	d.o.Log.Error("the audit log can't be written", "verb", rec.Verb, "resource", rec.Resource, "err", err)
	d.unrecorded.Do(func() {
		d.warn("the audit log could not be written, so that not all that was done is in it; make room, or mend it: " + err.Error())
	})
}

// recordRelease is record for a verb that releases a key: it must be durable before.
func (d *Daemon) recordRelease(c *call, verb, resource, key string) error {
	rec := recordOf(c, verb, resource, nil)
	rec.Key = key
	if err := d.write(c.ctx, rec); err != nil {
		return refusal.New(refusal.CodeOf(err), "make room for the audit log, or mend it; until then no key is released",
			"the release of a key could not be recorded: %w", err)
	}
	c.recorded = true
	return nil
}

// recordOf is the record of a verb and how it ended.
func recordOf(c *call, verb, resource string, err error) audit.Record {
	rec := audit.Record{Request: c.request, UID: c.caller.UID, User: c.caller.User, PID: c.pid, Verb: verb,
		Project: cut(c.project), Resource: resource, Outcome: audit.OK}
	if err != nil {
		r := refusal.From(err)
		rec.Outcome, rec.Code, rec.Message = audit.Refused, int(r.Code), cut(r.Message)
	}
	return rec
}

// write writes a record, also of a call whose caller has gone: nobody stays out of the log by hanging up.
func (d *Daemon) write(ctx context.Context, rec audit.Record) (err error) {
	ctx = context.WithoutCancel(ctx)
	if rec.Catalog, err = d.raw.Revision(ctx); err != nil {
		return err
	}
	_, err = d.log.Append(ctx, rec)
	return err
}

// ownRecord is a record of what the daemon does on its own.
func (d *Daemon) ownRecord(verb string) audit.Record {
	revision, err := d.raw.Revision(context.Background())
	if err != nil {
		d.o.Log.Error("reading the catalog's revision", "err", err)
	}
	return audit.Record{Request: newRequest(), UID: d.self.UID, User: d.self.User, Verb: verb,
		Resource: fmt.Sprintf("region %s", d.o.Region), Outcome: audit.OK, Catalog: revision}
}
