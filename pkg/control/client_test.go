package control

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// listen serves routes on a unix socket for the time of the test.
func listen(t *testing.T, routes map[string]http.HandlerFunc) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "control") // t.TempDir() can be longer than a socket's path may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, SocketControl)
	listener, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	for route, handle := range routes {
		mux.HandleFunc(route, handle)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: mux}}
	server.Start()
	t.Cleanup(server.Close)
	return socket
}

func wantCode(t *testing.T, err error, code refusal.Code, says ...string) {
	t.Helper()
	if refusal.CodeOf(err) != code {
		t.Fatalf("code %d, want %d: %v", refusal.CodeOf(err), code, err)
	}
	r := refusal.From(err)
	for _, word := range says {
		if !strings.Contains(r.Message+" "+r.Hint, word) {
			t.Errorf("%q (%q) does not say %q", r.Message, r.Hint, word)
		}
	}
}

// TestClientCalls makes every call once, through the same kind of router that the daemon uses, and looks at what
// arrives: the route with its wildcard, the project, the switches and the body.
func TestClientCalls(t *testing.T) {
	ctx := context.Background()
	const name = "a/b:c ü..%2F?"
	yes := true
	calls := []struct {
		route, wild, query, body string
		call                     func(*Client) error
	}{
		{RouteStatus, "", "keys=true", "", func(c *Client) error { _, err := c.Status(ctx, true); return err }},
		{RouteGrantCreate, "", "", "", func(c *Client) error { _, err := c.GrantCreate(ctx); return err }},
		{RouteGrantList, "", "", "", func(c *Client) error { _, err := c.GrantList(ctx); return err }},
		{RouteGrantRevoke, "", "yes=true", "", func(c *Client) error { return c.GrantRevoke(ctx, true) }},
		{RouteKeyCreate, "", "", `{"alias":"k"}`, func(c *Client) error { _, err := c.KeyCreate(ctx, KeyCreate{Alias: "k"}); return err }},
		{RouteKeyList, "", "", "", func(c *Client) error { _, err := c.KeyList(ctx); return err }},
		{RouteKeyShow, name, "", "", func(c *Client) error { _, err := c.KeyShow(ctx, name); return err }},
		{RouteKeyEnable, name, "", "", func(c *Client) error { _, err := c.KeyEnable(ctx, name); return err }},
		{RouteKeyDisable, "..", "", "", func(c *Client) error { _, err := c.KeyDisable(ctx, ".."); return err }},
		{RouteDiskCreate, "", "", `{"name":"d","size":512,"encrypted":true,"key":"k"}`, func(c *Client) error {
			_, err := c.DiskCreate(ctx, DiskCreate{Name: "d", Size: 512, Encrypted: &yes, Key: "k"})
			return err
		}},
		{RouteDiskList, "", "", "", func(c *Client) error { _, err := c.DiskList(ctx); return err }},
		{RouteDiskShow, ".", "", "", func(c *Client) error { _, err := c.DiskShow(ctx, "."); return err }},
		{RouteDiskExtend, name, "", `{"size":1024}`, func(c *Client) error { _, err := c.DiskExtend(ctx, name, 1024); return err }},
		{RouteDiskDelete, name, "yes=true", "", func(c *Client) error { return c.DiskDelete(ctx, name, true) }},
		{RouteDiskEscrow, name, "", "", func(c *Client) error { _, err := c.DiskEscrow(ctx, name, false); return err }},
		{RouteAttach, name, "", `{"read_only":true,"allow":["u"],"device":"/dev/nbd0","mount":"/m"}`, func(c *Client) error {
			_, err := c.Attach(ctx, name, Attach{ReadOnly: true, Allow: []string{"u"}, Device: "/dev/nbd0", Mount: "/m"})
			return err
		}},
		{RouteDetach, name, "", "", func(c *Client) error { _, err := c.Detach(ctx, name, false); return err }},
		{RouteDetach, name, "attachment=a&attest=true&yes=true", "", func(c *Client) error {
			_, err := c.DetachAs(ctx, name, DetachHow{Attachment: "a", Yes: true, Attest: true})
			return err
		}},
		{RouteDetach, name, "ask=true", "", func(c *Client) error { _, err := c.DetachAs(ctx, name, DetachHow{Ask: true}); return err }},
		{RouteDiskRekey, name, "", "", func(c *Client) error { _, err := c.DiskRekey(ctx, name); return err }},
		{RouteSnapshotDelete, name, "yes=true", "", func(c *Client) error { _, err := c.SnapshotDelete(ctx, name, true); return err }},
		{RouteSnapshotCreate, "", "", `{"name":"s","disk":"d"}`, func(c *Client) error {
			_, err := c.SnapshotCreate(ctx, SnapshotCreate{Name: "s", Disk: "d"})
			return err
		}},
		{RouteSnapshotList, "", "disk=d", "", func(c *Client) error { _, err := c.SnapshotList(ctx, "d"); return err }},
		{RouteSnapshotShow, name, "", "", func(c *Client) error { _, err := c.SnapshotShow(ctx, name); return err }},
		{RouteDiskRollback, name, "yes=true", `{"snapshot":"s"}`, func(c *Client) error { _, err := c.DiskRollback(ctx, name, "s", true); return err }},
		{RouteImageCreate, "", "", `{"name":"i","disk":"d","encrypted":true,"key":"k"}`, func(c *Client) error {
			_, err := c.ImageCreate(ctx, ImageCreate{Name: "i", Disk: "d", Encrypted: &yes, Key: "k"})
			return err
		}},
		{RouteImageUpload, "", "encrypted=true&key=k&name=i&sector_size=4096&size=7", "", func(c *Client) error {
			_, err := c.ImageUpload(ctx, ImageUpload{Name: "i", Size: 7, SectorSize: 4096, Encrypted: &yes, Key: "k"}, func(f *FrameWriter) error { return f.End(7) })
			return err
		}},
		{RouteImageCopy, name, "", `{"name":"i","key":"k"}`, func(c *Client) error { _, err := c.ImageCopy(ctx, name, ImageCopy{Name: "i", Key: "k"}); return err }},
		{RouteImageList, "", "", "", func(c *Client) error { _, err := c.ImageList(ctx); return err }},
		{RouteImageShow, name, "", "", func(c *Client) error { _, err := c.ImageShow(ctx, name); return err }},
		{RouteImageDelete, name, "yes=true", "", func(c *Client) error { return c.ImageDelete(ctx, name, true) }},
		{RouteBackupCreate, "", "", `{"disk":"d","name":"b","full":true}`, func(c *Client) error {
			_, err := c.BackupCreate(ctx, BackupCreate{Disk: "d", Name: "b", Full: true})
			return err
		}},
		{RouteBackupList, "", "disk=d", "", func(c *Client) error { _, err := c.BackupList(ctx, "d"); return err }},
		{RouteBackupShow, name, "", "", func(c *Client) error { _, err := c.BackupShow(ctx, name); return err }},
		{RouteBackupVerify, name, "", "", func(c *Client) error { _, err := c.BackupVerify(ctx, name); return err }},
		{RouteBackupDelete, name, "yes=true", "", func(c *Client) error { return c.BackupDelete(ctx, name, true) }},
		{RouteBackupPrune, "", "yes=true", `{"disk":"d","keep":3}`, func(c *Client) error {
			_, err := c.BackupPrune(ctx, BackupPrune{Disk: "d", Keep: 3}, true)
			return err
		}},
		{RouteBackupKey, "", "", "", func(c *Client) error { _, err := c.BackupKey(ctx); return err }},
		{RouteBackupOffer, "", "", `{"header":"AQ=="}`, func(c *Client) error {
			_, err := c.BackupOffer(ctx, BackupOffer{Header: []byte{1}})
			return err
		}},
		{RouteImageCreate, "", "", `{"name":"i","server":"s"}`, func(c *Client) error {
			_, err := c.ImageCreate(ctx, ImageCreate{Name: "i", Server: "s"})
			return err
		}},
		{RouteServerCreate, "", "", `{"name":"s","image":"i","system":{"size":7,"encrypted":true,"key":"k"},"data":[{"size":512,"sector_size":512}],"cpus":2,"memory":3,"network":"none"}`, func(c *Client) error {
			_, err := c.ServerCreate(ctx, ServerCreate{Name: "s", Image: "i", System: NewDisk{Size: 7, Encrypted: &yes, Key: "k"}, Data: []NewDisk{{Size: 512, SectorSize: 512}},
				Machine: Machine{CPUs: 2, Memory: 3, Network: NetworkNone}})
			return err
		}},
		{RouteServerList, "", "", "", func(c *Client) error { _, err := c.ServerList(ctx); return err }},
		{RouteServerShow, name, "", "", func(c *Client) error { _, err := c.ServerShow(ctx, name); return err }},
		{RouteServerStop, name, "yes=true", `{"timeout":"3s","force":true}`, func(c *Client) error {
			_, err := c.ServerStop(ctx, name, ServerStop{Timeout: "3s", Force: true}, true)
			return err
		}},
		{RouteServerDelete, name, "keep_disks=true&yes=true", "", func(c *Client) error { return c.ServerDelete(ctx, name, true, true) }},
		{RouteServerDelete, name, "", "", func(c *Client) error { return c.ServerDelete(ctx, name, false, false) }},
		{RouteServerAttach, name, "", `{"disk":"d","system":true}`, func(c *Client) error {
			_, err := c.ServerAttach(ctx, name, ServerDiskChange{Disk: "d", System: true})
			return err
		}},
		{RouteServerDetach, name, "yes=true", `{"disk":"d"}`, func(c *Client) error {
			_, err := c.ServerDetach(ctx, name, ServerDiskChange{Disk: "d"}, true)
			return err
		}},
		{RouteConfigCreate, "", "", `{"name":"c","server":"s","system":{},"cpus":2}`, func(c *Client) error {
			_, err := c.ConfigCreate(ctx, ConfigCreate{Name: "c", Server: "s", Machine: Machine{CPUs: 2}})
			return err
		}},
		{RouteConfigList, "", "", "", func(c *Client) error { _, err := c.ConfigList(ctx); return err }},
		{RouteConfigShow, name, "", "", func(c *Client) error { _, err := c.ConfigShow(ctx, name); return err }},
		{RouteConfigDelete, name, "yes=true", "", func(c *Client) error { return c.ConfigDelete(ctx, name, true) }},
		{RouteGroupCreate, "", "", `{"name":"g","config":"c","min":1,"max":3}`, func(c *Client) error {
			_, err := c.GroupCreate(ctx, GroupCreate{Name: "g", Config: "c", Min: 1, Max: 3})
			return err
		}},
		{RouteGroupList, "", "", "", func(c *Client) error { _, err := c.GroupList(ctx); return err }},
		{RouteGroupShow, name, "", "", func(c *Client) error { _, err := c.GroupShow(ctx, name); return err }},
		{RouteGroupScale, name, "yes=true", `{"size":2}`, func(c *Client) error { _, err := c.GroupScale(ctx, name, GroupScale{Size: 2}, true); return err }},
		{RouteGroupScale, name, "", `{"size":0,"force":true}`, func(c *Client) error { _, err := c.GroupScale(ctx, name, GroupScale{Force: true}, false); return err }},
		{RouteGroupDelete, name, "force=true&yes=true", "", func(c *Client) error { return c.GroupDelete(ctx, name, true, true) }},
		{RouteCheck, "", "", `{"disk":"d"}`, func(c *Client) error { _, err := c.Check(ctx, "d"); return err }},
		{RouteRootUnlock, "", "", "", func(c *Client) error { _, err := c.RootUnlock(ctx); return err }},
		{RouteRootLock, "", "", "", func(c *Client) error { _, err := c.RootLock(ctx); return err }},
		{RouteSlotList, "", "", "", func(c *Client) error { _, err := c.SlotList(ctx); return err }},
		{RouteSlotRemove, name, "yes=true", "", func(c *Client) error { _, err := c.SlotRemove(ctx, name, true); return err }},
		{RouteJobList, "", "", "", func(c *Client) error { _, err := c.JobList(ctx); return err }},
		{RouteJobShow, "j", "after=7&wait=2s", "", func(c *Client) error { _, err := c.JobShow(ctx, "j", 7, 2*time.Second); return err }},
		{RouteJobCancel, "j", "", "", func(c *Client) error { _, err := c.JobCancel(ctx, "j"); return err }},
	}
	for _, want := range calls {
		t.Run(want.route, func(t *testing.T) {
			var got *http.Request
			var body json.RawMessage
			socket := listen(t, map[string]http.HandlerFunc{want.route: func(w http.ResponseWriter, r *http.Request) {
				got = r
				_ = json.NewDecoder(r.Body).Decode(&body)
				list := strings.HasPrefix(want.route, "GET") && !strings.Contains(want.route, "{") && want.route != RouteStatus && want.route != RouteBackupKey
				if list {
					WriteJSON(w, http.StatusOK, []string{})
					return
				}
				WriteJSON(w, http.StatusOK, struct{}{})
			}})
			if err := want.call(New(socket).In("p q")); err != nil {
				t.Fatal(err)
			}
			_, wildcard, _ := strings.Cut(want.route, "{")
			wildcard, _, _ = strings.Cut(wildcard, "}")
			if wildcard != "" && got.PathValue(wildcard) != want.wild {
				t.Errorf("name %q arrived as %q", want.wild, got.PathValue(wildcard))
			}
			query := got.URL.Query()
			if query.Get(QueryProject) != "p q" {
				t.Errorf("project %q", query.Get(QueryProject))
			}
			query.Del(QueryProject)
			if query.Encode() != want.query {
				t.Errorf("query %q, want %q", query.Encode(), want.query)
			}
			if string(body) != want.body {
				t.Errorf("body %s, want %s", body, want.body)
			}
			if len(got.Header.Get(HeaderRequest)) != 36 {
				t.Errorf("request id %q", got.Header.Get(HeaderRequest))
			}
		})
	}
}

// TestClientAsksAgain breaks the connection of a change: it is asked once more, under the same id, and not twice.
func TestClientAsksAgain(t *testing.T) {
	for breaks, code := range []refusal.Code{refusal.OK, refusal.OK, refusal.Unreachable} {
		var mu sync.Mutex
		var ids []string
		socket := listen(t, map[string]http.HandlerFunc{RouteKeyCreate: func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			defer mu.Unlock()
			ids = append(ids, r.Header.Get(HeaderRequest))
			if len(ids) <= breaks {
				panic(http.ErrAbortHandler)
			}
			WriteJSON(w, http.StatusOK, Key{ID: "k"})
		}})
		key, err := New(socket).KeyCreate(context.Background(), KeyCreate{Alias: "a"})
		mu.Lock()
		defer mu.Unlock()
		wantCode(t, err, code)
		if err == nil && key.ID != "k" {
			t.Errorf("answer %+v", key)
		}
		if want := min(breaks+1, 2); len(ids) != want || ids[0] == "" || ids[0] != ids[len(ids)-1] {
			t.Errorf("%d breaks: asked under %q, want %d times one id", breaks, ids, want)
		}
	}
}

// TestClientCutAnswer breaks in the middle of an answer's body, which is no answer.
func TestClientCutAnswer(t *testing.T) {
	var calls atomic.Int32
	socket := listen(t, map[string]http.HandlerFunc{RouteStatus: func(w http.ResponseWriter, r *http.Request) {
		if calls.Add(1) == 1 {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte(`{"pid":`))
			panic(http.ErrAbortHandler)
		}
		WriteJSON(w, http.StatusOK, Status{PID: 7})
	}})
	status, err := New(socket).Status(context.Background(), false)
	if err != nil || status.PID != 7 {
		t.Fatalf("%+v, %v", status, err)
	}
}

func TestClientRefusals(t *testing.T) {
	for code := refusal.Failed; code <= refusal.Locked; code++ {
		sent := refusal.New(code, "do that", "was refused")
		socket := listen(t, map[string]http.HandlerFunc{RouteDiskShow: func(w http.ResponseWriter, r *http.Request) {
			WriteError(w, sent)
		}})
		_, err := New(socket).DiskShow(context.Background(), "d")
		got := refusal.From(err)
		if got.Code != code || got.Message != "was refused" || got.Hint != "do that" {
			t.Errorf("code %d arrived as %+v", code, got)
		}
	}
}

func TestClientStrangeAnswers(t *testing.T) {
	answers := map[string]http.HandlerFunc{
		"no JSON":        func(w http.ResponseWriter, r *http.Request) { http.Error(w, "gateway", http.StatusBadGateway) },
		"no error in it": func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, http.StatusNotFound, struct{}{}) },
		"code of success": func(w http.ResponseWriter, r *http.Request) {
			WriteJSON(w, http.StatusConflict, ErrorBody{Error: &Error{Message: "odd"}})
		},
		"redirect":   func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) },
		"cut":        func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"pid":`)) },
		"wrong type": func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte(`{"pid":"x"}`)) },
		"too long": func(w http.ResponseWriter, r *http.Request) {
			line := make([]byte, 1<<20)
			for range maxAnswer>>20 + 1 {
				_, _ = w.Write(line)
			}
		},
	}
	for name, answer := range answers {
		t.Run(name, func(t *testing.T) {
			socket := listen(t, map[string]http.HandlerFunc{RouteStatus: answer})
			_, err := New(socket).Status(context.Background(), false)
			wantCode(t, err, refusal.Failed)
		})
	}
}

func TestClientUnreachable(t *testing.T) {
	dir := t.TempDir()
	_, err := New(filepath.Join(dir, "none.sock")).Status(context.Background(), false)
	wantCode(t, err, refusal.Unreachable, "none.sock", "nbdcrypt serve --run "+dir)

	dead := filepath.Join(listenDir(t), "dead.sock")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	listener.Close()
	_, err = New(dead).Status(context.Background(), false)
	wantCode(t, err, refusal.Unreachable, "nothing listens", "dead.sock")

	_, err = New(filepath.Join(dir, strings.Repeat("x", 200))).Status(context.Background(), false)
	wantCode(t, err, refusal.Unreachable, "can't be opened")
}

func listenDir(t *testing.T) string { return filepath.Dir(listen(t, nil)) }

func TestClientInterrupted(t *testing.T) {
	arrived := make(chan struct{})
	socket := listen(t, map[string]http.HandlerFunc{RouteDetach: func(w http.ResponseWriter, r *http.Request) {
		close(arrived)
		<-r.Context().Done()
	}})
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-arrived; cancel() }()
	_, err := New(socket).Detach(ctx, "d", false)
	wantCode(t, err, refusal.Failed, "interrupted")

	late, stop := context.WithTimeout(context.Background(), time.Nanosecond)
	defer stop()
	_, err = New(socket).Status(late, false)
	wantCode(t, err, refusal.Failed, "in time")
}
