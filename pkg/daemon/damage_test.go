package daemon

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/nbd"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// withRole has the role user in the project default, withGrant but a grant of the key mine.
const withRole, withGrant uint32 = 62001, 62002

// deed is a call that works while nothing is damaged.
type deed struct {
	name, pattern, body string
	uid                 uint32
}

var deeds = []deed{
	{"status", control.RouteStatus, "", 0},
	{"disks", control.RouteDiskList, "", 0},
	{"disks by role", control.RouteDiskList, "", withRole},
	{"disks by grant", control.RouteDiskList, "", withGrant},
	{"keys", control.RouteKeyList, "", 0},
	{"show mine", "GET /v1/keys/mine", "", 0},
	{"uses mine", "GET /v1/keys/mine/uses", "", 0},
	{"grants mine", "GET /v1/keys/mine/grants", "", 0},
	{"grants", control.RouteGrantList, "", 0},
	{"roles", control.RouteRoleList, "", 0},
	{"projects", control.RouteProjectList, "", 0},
	{"show safe", "GET /v1/disks/safe", "", 0},
	{"attach safe", "POST /v1/disks/safe/attach", "{}", 0},
	{"attach vault", "POST /v1/disks/vault/attach", "{}", 0},
	{"attach plain", "POST /v1/disks/plain/attach", "{}", 0},
	{"detach plain", "POST /v1/disks/plain/detach", "", 0},
	{"create disk", control.RouteDiskCreate, `{"name":"new","size":1048576,"encrypted":true}`, 0},
	{"create key", control.RouteKeyCreate, `{"alias":"new"}`, 0},
	{"delete plain", "DELETE /v1/disks/plain?yes=true", "", 0},
}

// everything is what makes a store with a record of every kind.
var everything = []deed{
	{"", control.RouteGrantCreate, "", 0},
	{"", control.RouteKeyCreate, `{"alias":"mine"}`, 0},
	{"", control.RouteDiskCreate, `{"name":"vault","size":1048576,"encrypted":true}`, 0},
	{"", control.RouteDiskCreate, `{"name":"safe","size":1048576,"key":"mine"}`, 0},
	{"", control.RouteDiskCreate, `{"name":"plain","size":1048576,"encrypted":false}`, 0},
	{"", control.RouteProjectCreate, `{"name":"other"}`, 0},
	{"", control.RouteRoleGrant, fmt.Sprintf(`{"user":"%d","role":"user"}`, withRole), 0},
	{"", "POST /v1/keys/mine/grants", fmt.Sprintf(`{"user":"%d","operation":"decrypt"}`, withGrant), 0},
	{"", "POST /v1/disks/safe/attach", "{}", 0},
}

// refusals are the deeds that are refused, and all with which code; every other one works.
type refusals map[string]refusal.Code

func refusedWith(code refusal.Code, names ...string) refusals {
	r := refusals{}
	for _, name := range names {
		r[name] = code
	}
	return r
}

// wound is a record that is damaged, by what its name begins with, SAFE and MINE being ids. What is refused where it can't be read, and where it is
// missing. known tells that check finds that it is missing, in this record or in one that names it.
type wound struct {
	record        string
	bad, missing  refusals
	known, warned bool
}

const eight, three, five = refusal.Damaged, refusal.NotFound, refusal.Denied

var wounds = []wound{
	{"alias/local/default/mine", refusedWith(eight, "show mine", "uses mine", "grants mine"), refusedWith(three, "show mine", "uses mine", "grants mine"), true, false},
	{"attachment/SAFE", refusedWith(eight, "attach safe"), nil, false, true},
	{"audit/keyed", nil, nil, false, false},
	{"clock/high-water", nil, nil, false, true},
	{"dek/disk/SAFE/", refusedWith(eight, "attach safe"), refusedWith(eight, "attach safe"), true, false},
	{"disk/SAFE", refusedWith(eight, "show safe", "attach safe"), refusedWith(eight, "show safe", "attach safe"), true, true},
	{"disk-name/default/safe", refusedWith(eight, "show safe", "attach safe"), refusedWith(three, "show safe", "attach safe"), true, false},
	{"grant/local/default", refusedWith(eight, "grants", "attach safe", "attach vault", "create disk", "create key"),
		refusedWith(five, "attach safe", "attach vault", "create disk", "create key"), false, false},
	{"key/default/MINE", refusedWith(eight, "show mine", "uses mine", "grants mine", "attach safe"),
		refusals{"show mine": eight, "uses mine": eight, "grants mine": eight, "attach safe": refusal.KeyForbids, "disks by grant": five}, true, true},
	{"key-grant/MINE/", refusedWith(eight, "disks by grant", "grants mine"), refusedWith(five, "disks by grant"), false, false},
	{"layer/TOP", refusedWith(eight, "show safe", "attach safe"), refusedWith(eight, "show safe", "attach safe"), true, false},
	{"project/other", nil, nil, false, false},
	{"role/default/", refusedWith(eight, "disks by role", "roles"), refusedWith(five, "disks by role"), false, false},
	{"uses/MINE/", nil, nil, true, false},
}

var damages = []string{"truncated", "flipped", "moved", "missing"}

// TestDamagedRecordTakesNothingElseAlong: a record of each kind is truncated, altered, missing, or has the value of another. The daemon starts;
// what depends on the record is refused, and all else works; check names it.
func TestDamagedRecordTakesNothingElseAlong(t *testing.T) {
	whole := woundedStore(t)
	for _, w := range wounds {
		for _, how := range damages {
			t.Run(strings.ReplaceAll(w.record, "/", "_")+how, func(t *testing.T) {
				o := copyStore(t, whole.o)
				name := damageRecord(t, o, whole.ids.Replace(w.record), how)
				d := newDaemon(o)
				defer d.close()
				defer func() { _ = d.jobs.Shutdown(context.Background()) }()
				if err := d.open(t.Context()); err != nil {
					t.Fatalf("the daemon does not start: %v", err)
				}
				w.look(t, d, name, how)
			})
		}
	}
}

func (w wound) look(t *testing.T, d *Daemon, name, how string) {
	expected := w.bad
	if how == "missing" {
		expected = w.missing
	}
	if warned := strings.Contains(strings.Join(d.allWarnings(), " "), name); warned != (w.warned && how != "missing") {
		t.Errorf("the warnings are %q", d.allWarnings())
	}
	told := checkTells(t, d, name)
	if known := how != "missing" || w.known; told != known {
		t.Errorf("check tells of it: %v", told)
	}
	for _, c := range deeds {
		status, body := d.call(t, c.pattern, nbd.Peer{UID: c.uid}, c.body)
		code := refusal.OK
		if status >= http.StatusMultipleChoices {
			code = codeIn(body)
		}
		if code != expected[c.name] {
			t.Errorf("%s: %d %s", c.name, status, body)
		}
		if code == refusal.Damaged && how != "missing" && !strings.Contains(body, strings.Trim(fmt.Sprintf("%q", name), `"`)) {
			t.Errorf("%s does not name the record: %s", c.name, body)
		}
	}
}

// checkTells tells whether check calls a record damaged, or one that names it.
func checkTells(t *testing.T, d *Daemon, name string) bool {
	t.Helper()
	_, body := d.call(t, control.RouteCheck, nbd.Peer{}, "{}")
	job := d.awaitJob(t, body)
	report, is := job.Result.(control.CheckReport)
	if !is {
		t.Fatalf("check: %+v", job)
	}
	id := name[strings.LastIndex(name, "/")+1:]
	return slices.ContainsFunc(report.Findings, func(f control.Finding) bool {
		return f.Severity == keystore.Damage && f.Next != "" && (f.Where == name || strings.Contains(f.Problem, id))
	})
}

// TestRecordsThatAStartNeeds: without these it can't be told that this is the catalog of this store, and that the log is whole.
func TestRecordsThatAStartNeeds(t *testing.T) {
	whole := woundedStore(t)
	for _, record := range []string{"store", "audit/head"} {
		for _, how := range damages {
			o := copyStore(t, whole.o)
			damageRecord(t, o, record, how)
			d := newDaemon(o)
			err := d.open(t.Context())
			d.close()
			if refusal.CodeOf(err) != refusal.Damaged || !strings.Contains(err.Error(), record) {
				t.Errorf("%s %s: %v", record, how, err)
			}
		}
	}
}

// TestDamagedMarkerOfAnIndex: nothing is lost with it, as the index is built anew.
func TestDamagedMarkerOfAnIndex(t *testing.T) {
	whole := woundedStore(t)
	for _, how := range damages {
		o := copyStore(t, whole.o)
		damageRecord(t, o, "uses", how)
		d := newDaemon(o)
		if err := d.open(t.Context()); err != nil {
			t.Fatal(err)
		}
		if checkTells(t, d, "uses") {
			t.Errorf("%s: it is damaged still", how)
		}
		_ = d.jobs.Shutdown(context.Background())
		d.close()
	}
}

// woundable is a store to copy, with the ids of the disk safe, its layer, and the key mine.
type woundable struct {
	o   Options
	ids *strings.Replacer
}

// woundedStore makes the store of a daemon that ended without detaching the disk safe.
func woundedStore(t *testing.T) woundable {
	t.Helper()
	o := optionsIn(t.TempDir())
	d := newDaemon(o)
	defer d.close()
	if err := d.open(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, c := range everything {
		if status, body := d.call(t, c.pattern, nbd.Peer{UID: c.uid}, c.body); status >= http.StatusMultipleChoices {
			t.Fatalf("%s: %d %s", c.pattern, status, body)
		}
	}
	_, body := d.call(t, "GET /v1/disks/safe", nbd.Peer{}, "")
	var safe control.Disk
	if err := json.Unmarshal([]byte(body), &safe); err != nil {
		t.Fatal(err)
	}
	return woundable{o, strings.NewReplacer("SAFE", safe.ID, "MINE", safe.Key.ID, "TOP", safe.Layers[0].ID)}
}

// copyStore copies a store into memory, where there is room for files: it is damaged once and thrown away.
func copyStore(t *testing.T, o Options) Options {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "nbdc")
	if err != nil {
		dir = t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	to := optionsIn(filepath.Join(dir, "x"))
	if err := os.CopyFS(filepath.Dir(to.State), os.DirFS(filepath.Dir(o.State))); err != nil {
		t.Fatal(err)
	}
	for path, mode := range map[string]os.FileMode{to.RootKey: 0o600, to.State: 0o700} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// damageRecord damages the first record whose name begins so, below the seal, and returns its name.
func damageRecord(t *testing.T, o Options, prefix, how string) (name string) {
	t.Helper()
	raw, err := catalog.Open(filepath.Join(o.State, keystore.CatalogDir), catalog.Options{})
	if err != nil {
		t.Fatal(err)
	}
	err = raw.Update(t.Context(), "damage", func(txn catalog.Txn) error {
		pairs, err := txn.Scan(prefix, "", 1)
		if err != nil || len(pairs) == 0 {
			return fmt.Errorf("no record %s: %w", prefix, err)
		}
		name = pairs[0].Key
		value := pairs[0].Value
		switch how {
		case "missing":
			return txn.Delete(name)
		case "truncated":
			value = value[:len(value)-1]
		case "flipped":
			value[len(value)/2] ^= 1
		case "moved":
			value, err = another(txn, name)
		}
		if err != nil {
			return err
		}
		return txn.Put(name, value)
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := raw.Close(); err != nil {
		t.Fatal(err)
	}
	return name
}

// another is the value of another record, of the same kind where there is one.
func another(r catalog.Reader, name string) (value []byte, err error) {
	kind, _, _ := strings.Cut(name, "/")
	err = catalog.Each(r, "", func(p catalog.Pair) error {
		if p.Key != name && (value == nil || strings.HasPrefix(p.Key, kind+"/")) {
			value = p.Value
		}
		return nil
	})
	return value, err
}
