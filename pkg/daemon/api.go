package daemon

import (
	"cmp"
	"context"
	"errors"
	"net"
	"net/http"
	"net/url"
	"os/user"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/access"
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
	// shut tells that the root key was never open, without which nothing can be looked at for it.
	shut bool
	// keyID is the CMK that it is about, for the audit.
	keyID string
	// about is what it is about besides what the path names.
	about string
	// onlyDisk and onlyKey are what a grant was looked for, since no role allows the call: it is about nothing else.
	onlyDisk, onlySnapshot, onlyImage, onlyKey string
	// slot is what opened the root key in it.
	slot string
	// asker asks for the passphrase that follows the call, where its route says that one does.
	asker *control.Asker
	// upload is what comes with the call, where its route says that something does.
	upload *control.Upload
	// begun lets go of the project before the verb has ended: what keeps the project from being deleted is in the catalog by then.
	begun func()
}

// disk is the disk that the path names.
func (c *call) disk() string { return cmp.Or(c.onlyDisk, c.http.PathValue("disk")) }

// key is the key that the path names.
func (c *call) key() string { return cmp.Or(c.onlyKey, c.http.PathValue("key")) }

// yes tells whether the caller has confirmed.
func (c *call) yes() bool { return c.flag(control.QueryYes) }

// flag tells whether the query has one that is on.
func (c *call) flag(name string) bool { return c.http.URL.Query().Get(name) == "true" }

// asks tells whether the caller only wants to know if a detach would be refused.
func (c *call) asks() bool { return c.flag(control.QueryAsk) }

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

// whole takes the body of every request, also of one that no route wants, before anything else looks at it. An upload is for its verb.
func whole(next *http.ServeMux) http.Handler {
	uploads := uploadPatterns()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, pattern := next.Handler(r); uploads[pattern] {
			markSlash(r.URL)
			next.ServeHTTP(w, r)
			return
		}
		digest, err := control.TakeBody(w, r)
		if err != nil {
			control.WriteError(w, err)
			return
		}
		markSlash(r.URL)
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), bodyKey{}, digest)))
	})
}

// slash is how a name that is "/" alone, which an alias may be (rule B4), passes the mux: that would take it for the path's end.
const slash = "/\x00"

func markSlash(u *url.URL) {
	path := u.EscapedPath() + "/"
	if marked := strings.ReplaceAll(path, "/%2F/", "/%2F%00/"); marked != path {
		u.RawPath = strings.TrimSuffix(marked, "/")
		u.Path, _ = url.PathUnescape(u.RawPath) // it was escaped here
	}
}

func unmarkSlash(r *http.Request) {
	for _, name := range named {
		if r.PathValue(name) == slash {
			r.SetPathValue(name, "/")
		}
	}
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
	if named := r.PathValue("project"); named != "" {
		c.project = named
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
		unmarkSlash(req)
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
		refuse := func(err error) { control.WriteError(w, err) }
		if r.is(upload) {
			d.asking.Add(1) // as above
			defer d.asking.Done()
			c.upload = control.NewUpload(w, req)
			defer c.upload.End()
			refuse = c.upload.Refuse
		}
		if err := d.pace.wait(req.Context(), c.caller.UID); err != nil {
			refuse(err)
			return
		}
		status, body, err := d.answer(r, c)
		if err != nil {
			refuse(err)
			return
		}
		if answer, is := body.(*secretAnswer); is {
			if err := answer.send(w); err != nil {
				d.o.Log.Error("a secret answer did not reach its caller", "err", err)
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
	c.begun = sync.OnceFunc(d.hold(r))
	defer c.begun()
	c.about = namedIn(r, c)
	err = d.mayAsk(r, c)
	if d.stranger(c) && (err != nil || r.action == access.StatusShow || r.action == access.ProjectList) {
		d.pace.charge(c.caller.UID)
	}
	c.keyID = d.keyNamed(r, c) // before the verb, which may give the key another name
	if err == nil {
		body, err = d.do(r, c)
	}
	c.keyOfAnswer(body)
	d.tellRefused(r, c, err)
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

// named is what paths name.
var named = []string{"disk", "snapshot", "image", "backup", "key", "job", "slot", "server", "config", "group", "project"}

// resource is what a call is about, as it named it.
func (c *call) resource() string {
	for _, name := range named {
		if v := c.http.PathValue(name); v != "" {
			return strings.TrimSpace(cut(v) + " " + c.about)
		}
	}
	if c.about != "" {
		return cut(c.about)
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
