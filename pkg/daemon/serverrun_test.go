package daemon

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// While a server runs its disks are attached for who runs it, under names that nobody else knows; when the runner goes, however, they are detached and their keys wiped.
func TestServerRunsOnItsDisks(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	if len(r.first.Disks) != 4 || r.first.Disks[0].Role != control.SystemDisk || r.first.Server.Name != "web" || r.first.Disks[0].BlockSize != 512 || r.first.Disks[0].Size != 1<<20 {
		t.Fatalf("the first order: %+v", r.first)
	}
	if n := deks(); n != 4 { // the system disk stands on the image's layer
		t.Errorf("%d DEKs are in memory", n)
	}
	nc := r.dial(3)
	if _, err := nc.WriteAt([]byte("of the guest"), 4096); err != nil {
		t.Fatal(err)
	}
	s := showServer(t, c, "web")
	if s.Status != control.ServerRunning || s.PID != 4242 || s.Console != "/run/console" || s.Accelerator != "tcg" || s.Since == nil || s.By == "" {
		t.Errorf("%+v", s)
	}
	for i, disk := range r.first.Disks {
		if !strings.HasPrefix(disk.Export, aToken+"/") {
			t.Errorf("export %q", disk.Export)
		}
		if _, err := nbdclient.Dial(t.Context(), control.URI(disk.Name, disk.Socket)); err == nil {
			t.Errorf("disk %s opens by its own name", disk.Name)
		}
		shown, err := c.DiskShow(t.Context(), disk.Name)
		if err != nil || len(shown.Attachments) != 1 || shown.Attachments[0].URI != "" || shown.Attachments[0].By == "" || shown.Server == nil || shown.Server.Name != "web" || shown.Server.Role != disk.Role {
			t.Errorf("%+v, %v", shown, err)
		}
		if shown.Bootable != (i == 0) {
			t.Errorf("disk %s is bootable: %v", disk.Name, shown.Bootable)
		}
		_, err = c.Detach(t.Context(), disk.Name, true)
		code(t, err, refusal.Busy, "web", "server stop web")
		if i > 0 {
			code(t, err, refusal.Busy, "server detach web "+disk.Name)
		}
		_, err = c.DetachAs(t.Context(), disk.Name, control.DetachHow{Ask: true, Yes: true})
		code(t, err, refusal.Busy, "web")
		_, err = c.Attach(t.Context(), disk.Name, control.Attach{})
		code(t, err, refusal.Busy, "server web")
		code(t, c.DiskDelete(t.Context(), disk.Name, true), refusal.Busy, "web")
	}
	if list, err := d.exports.List(t.Context(), nbd.Peer{}); err != nil || len(list) != 0 {
		t.Errorf("exports that are listed: %v, %v", list, err)
	}
	if _, err := nbdclient.Dial(t.Context(), control.URI("", d.nbdPath())); err == nil {
		t.Error("the empty name opens one of them")
	}
	_, err := asked(t, c, "web", control.ServerRun{Token: aToken})
	code(t, err, refusal.Busy, "web")
	code(t, c.ServerDelete(t.Context(), "web", false, true), refusal.Busy, "stop")
	if err := r.line.Close(); err != nil { // as a runner that is killed
		t.Fatal(err)
	}
	s = rests(t, d, c, "web")
	if s.Ended != "the runner has gone" || s.PID != 0 {
		t.Errorf("%+v", s)
	}
	if _, err := nc.ReadAt(make([]byte, 1), 0); !errors.Is(err, syscall.ESHUTDOWN) && !errors.Is(err, nbdclient.ErrClosed) {
		t.Errorf("a guest that is left: %v", err)
	}
	if rec := lastOf(t, d, "server.ended"); rec.Outcome != audit.OK || !strings.Contains(rec.Resource, "web the runner has gone") {
		t.Errorf("%+v", rec)
	}
	at, err := c.Attach(t.Context(), r.first.Disks[3].Name, control.Attach{})
	if err != nil || at.Unclean {
		t.Fatal(at, err)
	}
	nc, err = nbdclient.Dial(t.Context(), at.URI)
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 12)
	if _, err := nc.ReadAt(got, 4096); err != nil || string(got) != "of the guest" {
		t.Errorf("%q, %v", got, err)
	}
	_, err = asked(t, c, "web", control.ServerRun{Token: aToken})
	code(t, err, refusal.Busy, r.first.Disks[3].Name) // somebody has it attached
	if _, err := c.Detach(t.Context(), r.first.Disks[3].Name, false); err != nil {
		t.Fatal(err)
	}
}

// lastOf is the last record of a verb.
func lastOf(t *testing.T, d *Daemon, verb string) (last audit.Record) {
	t.Helper()
	for _, rec := range d.records(t) {
		if rec.Verb == verb {
			last = rec
		}
	}
	return last
}

// epochs counts how often each disk of a server was attached.
func epochs(t *testing.T, d *Daemon, s control.Server) (list []string) {
	t.Helper()
	for _, disk := range s.Disks {
		err := d.catalog.View(t.Context(), func(r catalog.Reader) error {
			b, err := r.Get("disk/" + disk.ID)
			if _, after, found := strings.Cut(string(b), `"epoch":`); found {
				epoch, _, _ := strings.Cut(after, ",")
				list = append(list, disk.Name+" "+epoch)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return list
}

// TestRuleA36_OneKeyRefusesAll: whichever of a server's disks has a key that can't be used, nothing starts, nothing stays attached, and the refusal names disk, key and state.
func TestRuleA36_OneKeyRefusesAll(t *testing.T) {
	d, c := farm(t)
	s := showServer(t, c, "web")
	before := epochs(t, d, s)
	for i, key := range map[int]string{0: "a", 2: "b", 3: "c"} {
		must(t, d, "POST /v1/keys/"+key+"/disable", "")
		_, err := asked(t, c, "web", control.ServerRun{Token: aToken})
		code(t, err, refusal.KeyForbids, "web", s.Disks[i].Name, key, "Disabled")
		s := rests(t, d, c, "web")
		if got := epochs(t, d, s); !slices.Equal(got, before) {
			t.Errorf("attached: %v, before %v", got, before)
		}
		if len(s.Warnings) == 0 || !strings.Contains(s.Warnings[0], s.Disks[i].Name) {
			t.Errorf("it warns: %v", s.Warnings)
		}
		rec := lastOf(t, d, "server start")
		if rec.Outcome != audit.Refused || rec.Code != int(refusal.KeyForbids) || rec.KeyID != s.Disks[i].Key.ID || rec.Resource != "web" {
			t.Errorf("recorded: %+v", rec)
		}
		must(t, d, "POST /v1/keys/"+key+"/enable", "")
	}
	r := runs(t, d, c, "web")
	_ = r.line.Close()
	rests(t, d, c, "web")
}

// All keys that are in the way are named at once.
func TestServerStartNamesAllKeys(t *testing.T) {
	d, c := farm(t)
	must(t, d, "POST /v1/keys/a/disable", "")
	must(t, d, "POST /v1/keys/c/disable", "")
	_, err := asked(t, c, "web", control.ServerRun{Token: aToken})
	code(t, err, refusal.KeyForbids, "web-system", "web-data-3", "key a", "key c")
}

// What is only found as the n-th disk is attached takes back those before it: their keys are wiped, searched for, and who goes on from before still can.
func TestServerStartIsAllOrNothing(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	from := r.disks()
	_ = r.line.Close()
	s := rests(t, d, c, "web")
	before := epochs(t, d, s)
	for _, i := range []int{2, 3} {
		records := "dek/disk/" + s.Disks[i].ID + "/"
		undo := spoil(t, d, records)
		for _, how := range []control.ServerRun{{Token: aToken}, {Token: aToken, Continues: from}} {
			_, err := asked(t, c, "web", how)
			code(t, err, refusal.Damaged, s.Disks[i].Name)
			if got := epochs(t, d, rests(t, d, c, "web")); !slices.Equal(got, before) {
				t.Errorf("attached: %v, before %v", got, before)
			}
		}
		undo()
	}
	r = runs(t, d, c, "web", from...)
	_ = r.line.Close()
	rests(t, d, c, "web")
}

// spoil makes a record unreadable, until undo.
func spoil(t *testing.T, d *Daemon, prefix string) (undo func()) {
	t.Helper()
	var key string
	var kept []byte
	write := func(value []byte) {
		t.Helper()
		err := d.raw.Update(t.Context(), uuid.NewString(), func(txn catalog.Txn) error { return txn.Put(key, value) })
		if err != nil {
			t.Fatal(err)
		}
	}
	err := d.raw.View(t.Context(), func(r catalog.Reader) error {
		pairs, err := r.Scan(prefix, "", 1)
		if err == nil && len(pairs) == 0 {
			err = fmt.Errorf("no record %s", prefix)
		}
		if err == nil {
			key, kept = pairs[0].Key, slices.Clone(pairs[0].Value)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	bad := slices.Clone(kept)
	bad[len(bad)/2] ^= 1
	write(bad)
	return func() { write(kept) }
}

// A runner that goes before it has taken the disks, or says that it will not, leaves them as if it had not come.
func TestRunnerThatDoesNotTake(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	from := r.disks()
	_ = r.line.Close()
	before := epochs(t, d, rests(t, d, c, "web"))
	d.takenTime = time.Second
	for what, leave := range map[string]func(*runner){
		"says nothing":   func(*runner) {},
		"hangs up":       func(r *runner) { _ = r.line.Close() },
		"says no":        func(r *runner) { r.say(control.RunReport{Ended: "no QEMU"}) },
		"says something": func(r *runner) { r.say(control.RunReport{Resumed: true}) },
	} {
		for _, how := range []control.ServerRun{{Token: aToken}, {Token: aToken, Continues: from}} {
			r, err := asked(t, c, "web", how)
			if err != nil {
				t.Fatal(what, err)
			}
			if _, err := nbdclient.Dial(t.Context(), control.URI(r.first.Disks[0].Export, d.nbdPath())); err == nil {
				t.Error("an export is open before it was taken")
			}
			leave(r)
			if got := epochs(t, d, rests(t, d, c, "web")); !slices.Equal(got, before) {
				t.Errorf("%s: attached: %v, before %v", what, got, before)
			}
		}
	}
	if s := showServer(t, c, "web"); s.Ended == "" {
		t.Error("nothing says how it ended")
	}
	r = runs(t, d, c, "web", from...)
	_ = r.line.Close()
	rests(t, d, c, "web")
}

// A runner that has taken the disks and goes before QEMU runs, or says how it ended.
func TestRunnerThatEnds(t *testing.T) {
	d, c := farm(t)
	for ended, leave := range map[string]func(*runner){
		"the runner has gone": func(r *runner) { _ = r.line.Close() },
		"QEMU  died":          func(r *runner) { r.say(control.RunReport{Ended: "QEMU\n\x1bdied"}) },
	} {
		r, err := asked(t, c, "web", control.ServerRun{Token: aToken})
		if err != nil {
			t.Fatal(err)
		}
		r.say(control.RunReport{Taken: true})
		leave(r)
		await(t, "it is told", func() bool { return showServer(t, c, "web").Ended == ended })
		rests(t, d, c, "web")
	}
}

// A daemon that stops lets go of the disks of servers without an error for their guests: the next one attaches them again for who goes on.
func TestServerOutlivesItsDaemon(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	nc := r.dial(0)
	if _, err := nc.WriteAt([]byte("before"), 0); err != nil {
		t.Fatal(err)
	}
	from := r.disks()
	d.halt(t)
	<-r.ended
	if !r.bye {
		t.Error("it was not told")
	}
	if _, err := nc.ReadAt(make([]byte, 6), 0); err == nil || errors.Is(err, syscall.ESHUTDOWN) {
		t.Errorf("its guest hears %v", err)
	}
	d = served(t, d.o)
	for what, wrong := range map[string]func([]control.Continues) []control.Continues{
		"an older epoch": func(l []control.Continues) []control.Continues { l[1].Epoch--; return l },
		"another disk":   func(l []control.Continues) []control.Continues { l[1].DiskID = uuid.NewString(); return l },
		"one more": func(l []control.Continues) []control.Continues {
			return append(l, control.Continues{DiskID: uuid.NewString(), Epoch: 1})
		},
		"no system disk": func(l []control.Continues) []control.Continues { return l[1:] },
	} {
		_, err := asked(t, c, "web", control.ServerRun{Token: aToken, Continues: wrong(slices.Clone(from))})
		if refusal.CodeOf(err) != refusal.Damaged {
			t.Errorf("%s: %v", what, err)
		}
	}
	r = runs(t, d, c, "web", from...)
	if nc := r.dial(0); nc != nil {
		got := make([]byte, 6)
		if _, err := nc.ReadAt(got, 0); err != nil || string(got) != "before" {
			t.Errorf("%q, %v", got, err)
		}
	}
	_ = r.line.Close()
	rests(t, d, c, "web")
	// Somebody has it attached once: whoever goes on would find another disk.
	from = r.disks()
	if _, err := c.Attach(t.Context(), "web-system", control.Attach{}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Detach(t.Context(), "web-system", false); err != nil {
		t.Fatal(err)
	}
	_, err := asked(t, c, "web", control.ServerRun{Token: aToken, Continues: from})
	code(t, err, refusal.Damaged, "web-system")
}

// Rules A14 and A22: a server goes on while a key of its disks is disabled, and does not come back after a restart of the daemon for as long as it is, or the store is locked; then it does.
func TestRuleA14_A22_ServersAndTheirKeys(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	nc := r.dial(3)
	must(t, d, "POST /v1/keys/c/disable", "")
	if _, err := nc.WriteAt([]byte("goes on"), 0); err != nil {
		t.Errorf("under a key that is disabled: %v", err)
	}
	if s := showServer(t, c, "web"); len(s.Warnings) != 1 || !strings.Contains(s.Warnings[0], "web-data-3") || !strings.Contains(s.Warnings[0], "until it is stopped") {
		t.Errorf("it warns: %v", s.Warnings)
	}
	from := r.disks()
	d.halt(t)
	d = served(t, d.o)
	before := epochs(t, d, showServer(t, c, "web"))
	how := control.ServerRun{Token: aToken, Continues: from}
	_, err := asked(t, c, "web", how)
	code(t, err, refusal.KeyForbids, "web-data-3", "key c", "Disabled")
	must(t, d, "POST /v1/keys/c/enable", "")
	must(t, d, control.RouteRootLock, "")
	_, err = asked(t, c, "web", how)
	code(t, err, refusal.Locked, "root unlock")
	must(t, d, control.RouteRootUnlock, "")
	if got := epochs(t, d, showServer(t, c, "web")); !slices.Equal(got, before) {
		t.Errorf("attached: %v, before %v", got, before)
	}
	r = runs(t, d, c, "web", from...)
	got := make([]byte, 7)
	if _, err := r.dial(3).ReadAt(got, 0); err != nil || string(got) != "goes on" {
		t.Errorf("%q, %v", got, err)
	}
	must(t, d, control.RouteRootLock, "")
	if _, err := c.ServerStop(t.Context(), "web", control.ServerStop{}, false); err != nil { // it works while the store is locked
		t.Error(err)
	}
	rests(t, d, c, "web")
}

// A run that goes on has the disks that it had; one that the server got meanwhile waits for the next.
func TestRunGoesOnWithWhatItHad(t *testing.T) {
	d, c := farm(t)
	r := runs(t, d, c, "web")
	_ = r.line.Close()
	rests(t, d, c, "web")
	r = runs(t, d, c, "web", r.disks()[:3]...)
	if len(r.first.Disks) != 3 || !slices.ContainsFunc(r.first.Server.Warnings, func(w string) bool { return strings.Contains(w, "web-data-3") }) {
		t.Errorf("%+v", r.first)
	}
	if _, err := c.ServerDetach(t.Context(), "web", control.ServerDiskChange{Disk: "web-data-3"}, false); err != nil {
		t.Error(err)
	}
	if s := showServer(t, c, "web"); len(s.Disks) != 3 {
		t.Errorf("%+v", s.Disks)
	}
}

// What is no token, or names a disk twice, is refused before anything is looked at.
func TestRunsThatAreWrong(t *testing.T) {
	_, c := farm(t)
	id := uuid.NewString()
	for _, how := range []control.ServerRun{{}, {Token: aToken[1:]}, {Token: strings.ToUpper(aToken)}, {Token: aToken + "0"}, {Token: "../" + aToken[3:]},
		{Token: aToken, Continues: []control.Continues{{DiskID: "x"}}}, {Token: aToken, Continues: []control.Continues{{DiskID: id}, {DiskID: id}}}} {
		_, err := asked(t, c, "web", how)
		code(t, err, refusal.Usage)
	}
	_, err := asked(t, c, "none", control.ServerRun{Token: aToken})
	code(t, err, refusal.NotFound)
}

// One user has a bounded number of servers that run; root has always one more.
func TestBoundedRuns(t *testing.T) {
	ls := newLeases()
	for range maxUserLeases {
		if err := ls.admit(1000); err != nil {
			t.Fatal(err)
		}
	}
	code(t, ls.admit(1000), refusal.Busy)
	if err := errors.Join(ls.admit(1001), ls.admit(0)); err != nil {
		t.Error(err)
	}
	ls.leave(1000)
	if err := ls.admit(1000); err != nil {
		t.Error(err)
	}
}
