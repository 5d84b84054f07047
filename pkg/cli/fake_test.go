package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// fake is a daemon for tests: it keeps disks and keys in memory, answers the routes as the real one does, and notes what
// it is asked.
type fake struct {
	run   string
	mu    sync.Mutex
	asked []string
	grant *control.Grant
	keys  []*control.Key
	disks []*control.Disk
	made  int
	jobs  *control.Jobs
	// root is how the root key is, passphrase what opens it beside the key file, and given what was given for it.
	root       control.RootState
	clock      control.Clock
	passphrase string
	given      []string
	// records and head are the audit log's.
	records []control.AuditRecord
	head    control.AuditHead
	// check is what RouteCheck finds.
	check control.CheckReport
	// rights is who may do what.
	rights rights
	// attest is what the search after a detach finds.
	attest control.Attest
	// refuse makes every call fail.
	refuse    error
	images    []*control.Image
	snapshots []*control.Snapshot
	sent      []byte // with the last upload
	// backups have files, of which an export breaks off at breaks; have is what an import finds there, and imported what it brought.
	// elsewhere says that another store made and signed them.
	backups   []*control.Backup
	files     [][]byte
	breaks    int
	elsewhere bool
	have      int64
	imported  []byte
	// servers, and the scaling that makes more; numbers are those that its members have had.
	servers []*control.Server
	configs []*control.ScalingConfig
	groups  []*control.ScalingGroup
	numbers int
}

func moment0() time.Time { return time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC) }

// serveFake starts a fake on a run directory of its own.
func serveFake(t *testing.T) *fake {
	t.Helper()
	dir, err := os.MkdirTemp("", "cli") // t.TempDir() can be longer than a socket's path may be
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	f := &fake{run: dir, jobs: control.NewJobs(4), clock: clock0(), root: control.RootState{Slots: []control.Slot{
		{ID: control.SlotKeyFile, Kind: control.SlotKeyFile, Name: control.SlotKeyFile, Detail: "/root.key", Automatic: true, Present: true}}}}
	listener, err := net.Listen("unix", filepath.Join(dir, control.SocketControl))
	if err != nil {
		t.Fatal(err)
	}
	server := &httptest.Server{Listener: listener, Config: &http.Server{Handler: f.mux()}}
	server.Start()
	t.Cleanup(server.Close)
	return f
}

func (f *fake) mux() *http.ServeMux {
	mux := http.NewServeMux()
	handle := func(route string, fn func(r *http.Request) (any, error)) {
		mux.HandleFunc(route, func(conn http.ResponseWriter, r *http.Request) {
			w := control.NewAsker(conn, r)
			defer w.Close()
			r = r.WithContext(context.WithValue(r.Context(), askerKey{}, w))
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(newReader(body))
			f.mu.Lock()
			defer f.mu.Unlock()
			if route == control.RouteImageUpload || route == control.RouteBackupImport || route == control.RouteBackupOffer {
				body = nil // frames are not for the eye
			}
			f.asked = append(f.asked, fmt.Sprintf("%s %s %s", r.Method, r.URL.RequestURI(), body))
			v, err := fn(r)
			if f.refuse != nil {
				err = f.refuse
			}
			if err != nil {
				control.WriteError(w, err)
				return
			}
			if _, isJob := v.(control.Job); isJob && (route == control.RouteCheck || route == control.RouteDetach || route == control.RouteBackupImport) {
				control.WriteJSON(w, http.StatusAccepted, v)
				return
			}
			control.WriteJSON(w, http.StatusOK, v)
		})
	}
	handle(control.RouteStatus, f.status)
	f.rightsRoutes(handle)
	handle(control.RouteGrantCreate, f.grantCreate)
	handle(control.RouteGrantList, func(*http.Request) (any, error) {
		if f.grant == nil {
			return []control.Grant{}, nil
		}
		return []control.Grant{*f.grant}, nil
	})
	handle(control.RouteGrantRevoke, f.grantRevoke)
	handle(control.RouteKeyCreate, f.keyCreate)
	handle(control.RouteKeyList, func(*http.Request) (any, error) { return control.List(f.keys), nil })
	handle(control.RouteKeyShow, func(r *http.Request) (any, error) { return f.key(r.PathValue("key")) })
	handle(control.RouteKeyEnable, func(r *http.Request) (any, error) { return f.setKey(r, "Enabled") })
	handle(control.RouteKeyDisable, func(r *http.Request) (any, error) { return f.setKey(r, "Disabled") })
	f.keyRoutes(handle)
	f.materialRoutes(handle)
	f.imageRoutes(handle)
	f.snapshotRoutes(handle)
	f.backupRoutes(mux, handle)
	f.serverRoutes(handle)
	f.scalingRoutes(handle)
	handle(control.RouteDiskCreate, f.diskCreate)
	handle(control.RouteDiskList, func(*http.Request) (any, error) { return control.List(f.disks), nil })
	handle(control.RouteDiskShow, func(r *http.Request) (any, error) { return f.disk(r.PathValue("disk")) })
	handle(control.RouteDiskExtend, f.diskExtend)
	handle(control.RouteDiskDelete, f.diskDelete)
	handle(control.RouteDiskEscrow, f.diskEscrow)
	mux.HandleFunc(control.RouteDiskExport, f.diskExport)
	mux.HandleFunc(control.RouteAuditList, f.auditList)
	handle(control.RouteAuditHead, func(*http.Request) (any, error) { return f.head, nil })
	handle(control.RouteAuditVerify, func(r *http.Request) (any, error) {
		var ask control.AuditVerify
		err := control.ReadJSON(r, &ask)
		return control.AuditVerified{Records: f.head.Seq, Heads: len(ask.Heads), Head: f.head}, err
	})
	handle(control.RouteAttach, f.attach)
	handle(control.RouteDetach, f.detach)
	handle(control.RouteRootUnlock, f.rootUnlock)
	handle(control.RouteRootPassphrase, f.rootPassphrase)
	handle(control.RouteRootLock, f.rootLock)
	handle(control.RouteSlotList, func(*http.Request) (any, error) { return f.root.Slots, nil })
	handle(control.RouteSlotAdd, f.slotAdd)
	handle(control.RouteSlotToken, f.slotToken)
	handle(control.RouteSlotRemove, f.slotRemove)
	f.slotRoutes(handle)
	handle(control.RouteCheck, func(r *http.Request) (any, error) {
		return f.jobs.Start(control.Job{Verb: "check", Unit: "blocks"}, f.checking(f.check))
	})
	mux.HandleFunc(control.RouteJobShow, func(w http.ResponseWriter, r *http.Request) {
		after, wait, _ := control.Wait(r)
		job, err := f.jobs.Get(r.Context(), r.PathValue("job"), after, wait)
		if err != nil {
			control.WriteError(w, err)
			return
		}
		control.WriteJSON(w, http.StatusOK, job)
	})
	return mux
}

func (f *fake) id() string {
	f.made++
	return fmt.Sprintf("%08x-0000-4000-8000-000000000000", f.made)
}

func (f *fake) nbd() string { return filepath.Join(f.run, control.SocketNBD) }

func (f *fake) status(r *http.Request) (any, error) {
	s := control.Status{
		Version: "v0", PID: 42, Started: moment0(), Region: "local", State: "/state", Pool: "/state/pool", RootKey: "/root.key",
		Control: filepath.Join(f.run, control.SocketControl), NBD: f.nbd(), Listen: []string{control.URI("", f.nbd()), "nbds://0.0.0.0:10809"}, Disks: len(f.disks), PoolFree: 5 << 30,
		Locked: f.root.Locked, KeyMemory: control.Memory{Kind: "memfd_secret", Used: 64, Locked: 131072, Limit: 8388608, Keys: 1}, Warnings: []string{"the pool is nearly full"},
		Protection: control.Protection{NoNewPrivs: true, Signals: []string{}, Swap: "none", SwapAreas: []string{}, Hibernation: "impossible"},
	}
	if len(f.disks) == 0 { // as bad as it may get
		s.KeyMemory = control.Memory{Kind: "locked memory", Locked: 65536}
		s.Protection = control.Protection{Dumpable: true, Core: true, Signals: []string{"SIGURG", "SIGUSR1"}, Swap: "unencrypted",
			SwapAreas: []string{"/dev/sda2"}, Hibernation: "possible"}
	}
	if since := moment0(); s.Locked {
		s.LockedSince = &since
	}
	for _, d := range f.disks {
		if len(d.Attachments) > 0 {
			s.Attached++
			if r.URL.Query().Get(control.QueryKeys) == "true" {
				s.Keys = append(s.Keys, control.HeldKey{Kind: "dek", ID: d.Layers[0].ID, For: "disk " + d.Name, Since: moment0()},
					control.HeldKey{Kind: "derived", For: "one derivation, wrap or unwrap", Since: moment0()})
			}
		}
	}
	return s, nil
}

func (f *fake) grantCreate(r *http.Request) (any, error) {
	if f.grant == nil {
		f.grant = &control.Grant{Project: r.URL.Query().Get(control.QueryProject), Region: "local", By: "root", Created: moment0()}
		f.keys = append(f.keys, &control.Key{ID: f.id(), Alias: "evs/default", Project: f.grant.Project, State: "Enabled", Default: true, Origin: "local", Version: 1, Created: moment0(), Tags: map[string]string{}})
	}
	return f.grant, nil
}

func (f *fake) grantRevoke(r *http.Request) (any, error) {
	if len(f.disks) > 0 && r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "Confirm it.", "1 encrypted disk could not be attached any more")
	}
	f.grant = nil
	return struct{}{}, nil
}

func (f *fake) key(name string) (*control.Key, error) {
	for _, k := range f.keys {
		if k.Alias == name || k.ID == name {
			return k, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt key list` lists them.", "no key %s", name)
}

func (f *fake) keyCreate(r *http.Request) (any, error) {
	var ask control.KeyCreate
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	if _, err := f.key(ask.Alias); err == nil {
		return nil, refusal.New(refusal.Busy, "Choose another alias.", "key %s exists already", ask.Alias)
	}
	k := &control.Key{ID: f.id(), Alias: ask.Alias, Project: r.URL.Query().Get(control.QueryProject), State: "Enabled", Origin: "local", Version: 1, Created: moment0(),
		Description: ask.Description, Tags: tagsOf(ask.Tags)}
	f.keys = append(f.keys, k)
	return k, nil
}

func (f *fake) setKey(r *http.Request, state string) (any, error) {
	return f.setKeyState(r.PathValue("key"), state)
}

func (f *fake) setKeyState(name, state string) (any, error) {
	k, err := f.key(name)
	if err != nil {
		return nil, err
	}
	if k.Default {
		return nil, refusal.New(refusal.KeyForbids, "Use a key of your own.", "%s is a default key: it can't be disabled", k.Alias)
	}
	k.State = state
	for _, d := range f.disks {
		if d.Key != nil && d.Key.ID == k.ID {
			d.Key.State = state
		}
	}
	return k, nil
}

func (f *fake) disk(name string) (*control.Disk, error) {
	for _, d := range f.disks {
		if d.Name == name || d.ID == name {
			return d, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt disk list` lists them.", "no disk %s", name)
}

func (f *fake) diskCreate(r *http.Request) (any, error) {
	var ask control.DiskCreate
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	if _, err := f.disk(ask.Name); err == nil {
		return nil, refusal.New(refusal.Busy, "Choose another name.", "disk %s exists already", ask.Name)
	}
	if ask.SectorSize == 0 {
		ask.SectorSize = 512
	}
	layer := f.id()
	d := &control.Disk{
		ID: f.id(), Name: ask.Name, Project: r.URL.Query().Get(control.QueryProject), Size: ask.Size, SectorSize: ask.SectorSize, HideHoles: ask.HideHoles, Shared: ask.Shared, Status: "available",
		Created: moment0(), Layers: []control.DiskLayer{{ID: layer, Segments: []string{"/state/pool/" + layer + "/data.0000"}}},
	}
	if ask.Size > 5<<30 {
		d.Warnings = []string{"the pool has only 5 GiB free"}
	}
	if ask.Encrypted != nil && *ask.Encrypted {
		if f.grant == nil {
			return nil, refusal.New(refusal.Denied, "Ask a security administrator (root) for `nbdcrypt grant create`.", "the project's rights are not granted")
		}
		if ask.Key == "" {
			ask.Key = "evs/default"
		}
		k, err := f.key(ask.Key)
		if err != nil {
			return nil, err
		}
		d.Encrypted, d.Key = true, &control.DiskKey{ID: k.ID, Alias: k.Alias, State: k.State}
	}
	if ask.FromBackup != "" {
		b, err := f.backup(ask.FromBackup)
		if err != nil {
			return nil, err
		}
		d.Size, d.Source = max(d.Size, b.Size), &control.DiskSource{Kind: "backup", ID: b.ID, Name: b.Name}
	}
	if ask.FromSnapshot != "" {
		if err := f.inherit(ask, d); err != nil {
			return nil, err
		}
	}
	f.disks = append(f.disks, d)
	return d, nil
}

func (f *fake) diskExtend(r *http.Request) (any, error) {
	var ask control.DiskExtend
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	d, err := f.disk(r.PathValue("disk"))
	if err != nil {
		return nil, err
	}
	if ask.Size < d.Size {
		return nil, refusal.New(refusal.Usage, "A disk only grows.", "disk %s has %d bytes already", d.Name, d.Size)
	}
	d.Size, d.Warnings = ask.Size, nil
	return d, nil
}

func (f *fake) diskDelete(r *http.Request) (any, error) {
	d, err := f.disk(r.PathValue("disk"))
	if err != nil {
		return nil, err
	}
	if len(d.Attachments) > 0 {
		return nil, refusal.New(refusal.Busy, "`nbdcrypt detach "+d.Name+"` first.", "disk %s is attached", d.Name)
	}
	if r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "", "disk %s will be deleted, and its data can't be restored", r.PathValue("disk"))
	}
	f.disks = slices.DeleteFunc(f.disks, func(o *control.Disk) bool { return o == d })
	return struct{}{}, nil
}

// diskExport sends less than it announces where the disk is called "short".
func (f *fake) diskExport(w http.ResponseWriter, r *http.Request) {
	escrow, err := f.diskEscrow(r)
	if f.refuse != nil {
		err = f.refuse
	}
	if err != nil {
		control.WriteError(w, err)
		return
	}
	w.Header().Set(control.HeaderSize, "1048576")
	_ = json.NewEncoder(w).Encode(escrow)
	n := 1 << 20
	if r.PathValue("disk") == "short" {
		n--
	}
	_, _ = w.Write(make([]byte, n))
}

func (f *fake) diskEscrow(r *http.Request) (any, error) {
	d, err := f.disk(r.PathValue("disk"))
	if err != nil {
		return nil, err
	}
	if r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "", "the keys of disk %s will be printed in clear", r.PathValue("disk"))
	}
	return control.Escrow{Cipher: "aes-xts-plain64", SectorSize: d.SectorSize, Layers: []control.EscrowLayer{{ID: d.Layers[0].ID, Key: fmt.Sprintf("%0128x", 7)}}}, nil
}

func (f *fake) attach(r *http.Request) (any, error) {
	var ask control.Attach
	if err := control.ReadJSON(r, &ask); err != nil {
		return nil, err
	}
	d, err := f.disk(r.PathValue("disk"))
	if err != nil {
		return nil, err
	}
	if d.Key != nil && d.Key.State != "Enabled" {
		return nil, refusal.New(refusal.KeyForbids, "`nbdcrypt key enable "+d.Key.Alias+"`", "key %s is %s", d.Key.Alias, d.Key.State)
	}
	export := control.ExportName(r.URL.Query().Get(control.QueryProject), d.Name)
	at := control.Attached{Disk: d.Name, DiskID: d.ID, Attachment: f.id(), Epoch: uint64(f.made), Export: export, URI: control.URI(export, f.nbd()), ReadOnly: ask.ReadOnly, Mount: ask.Mount}
	if ask.Device != "" {
		at.Device = &ask.Device
	}
	d.Status = "in-use"
	if !d.Shared {
		d.Attachments = nil
	}
	d.Attachments = append(d.Attachments, control.Attachment{ID: at.Attachment, URI: at.URI, Since: moment0(), ReadOnly: ask.ReadOnly, By: "root", Allow: ask.Allow, Clients: 1,
		Device: at.Device, Mount: at.Mount})
	return at, nil
}

func (f *fake) detach(r *http.Request) (any, error) {
	d, err := f.disk(r.PathValue("disk"))
	if err != nil {
		return nil, err
	}
	if len(d.Attachments) == 0 {
		return nil, refusal.New(refusal.Busy, "", "disk %s is not attached", d.Name)
	}
	if d.Key != nil && d.Key.State != "Enabled" && r.URL.Query().Get(control.QueryYes) != "true" {
		return nil, refusal.New(refusal.Confirm, "", "disk %s could not be attached again: key %s is %s", d.Name, d.Key.Alias, d.Key.State)
	}
	of := d.Attachments[len(d.Attachments)-1]
	if named := r.URL.Query().Get(control.QueryAttachment); named != "" {
		of = d.Attachments[slices.IndexFunc(d.Attachments, func(at control.Attachment) bool { return at.ID == named })]
	}
	gone := control.Detached{Disk: d.Name, DiskID: d.ID, Attachment: of.ID, Left: len(d.Attachments) - 1, Device: of.Device, Mount: of.Mount, By: of.By}
	if r.URL.Query().Get(control.QueryAsk) == "true" {
		return gone, nil
	}
	gone.Clients = 1
	d.Attachments = slices.DeleteFunc(d.Attachments, func(at control.Attachment) bool { return at.ID == gone.Attachment })
	if gone.Left > 0 {
		return gone, nil
	}
	d.Status = "available"
	if d.Key == nil || r.URL.Query().Get(control.QueryAttest) != "true" {
		return gone, nil
	}
	found := f.attest
	gone.Attest = &found
	return f.jobs.Await(control.Job{Verb: "attest", Resource: d.Name, Unit: "bytes"},
		func(context.Context, func(done, total int64)) (any, error) { return gone, nil })
}
