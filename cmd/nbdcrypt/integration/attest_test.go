//go:build integration

package integration

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
)

// attests are the audit's records of searches, by disk.
func (d *daemon) attests() map[string][]audit.Record {
	d.t.Helper()
	found := map[string][]audit.Record{}
	for line := range strings.Lines(string(readFile(d.t, d.state+"/audit.log"))) {
		var r audit.Record
		check(d.t, json.Unmarshal([]byte(line), &r))
		if r.Verb == "attest" {
			found[r.Resource] = append(found[r.Resource], r)
		}
	}
	return found
}

// searched tells whether a report is of a search that could have found something.
func searched(a *control.Attest) bool {
	return a != nil && a.Bytes > 20<<20 && a.Regions > 10 && a.Unreadable < a.Bytes/10 && a.Seconds > 0
}

// TestRuleA13_AttestUnderLoad detaches a disk from under its clients, while another goes on.
func TestRuleA13_AttestUnderLoad(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	var ended []func()
	for _, name := range []string{"goes", "stays"} {
		l := newLoad(512)
		d.create(name, fmt.Sprint(l.size()), "--encrypted")
		ended = append(ended, l.start(t, d.attach(name)))
		waitFor(t, "the load flushes", func() bool { return l.flushes.Load() > 3 })
	}
	gone := get[control.Detached](d, "detach", "goes", "--attest")
	if gone.Clients != workers || !searched(gone.Attest) || gone.Attest.Found != 0 || len(gone.Attest.Hits) != 0 {
		t.Errorf("%+v, %+v", gone, gone.Attest)
	}
	ended[0]()
	out := d.do("detach", "stays", "--attest")
	if !strings.HasPrefix(out, "stays is detached; 4 clients were disconnected\nsearched ") || !strings.Contains(out, " regions: no trace of the key\n") {
		t.Errorf("it printed %q", out)
	}
	ended[1]()
	for _, name := range []string{"goes", "stays"} {
		if r := d.attests()[d.show(name).ID]; len(r) != 1 || r[0].Outcome != audit.OK || r[0].User != "root" || r[0].Project != "default" {
			t.Errorf("%s: the audit has %+v", name, r)
		}
	}
	if w := d.status().Warnings; len(w) != 1 { // of the root key
		t.Errorf("warnings: %q", w)
	}
}

// TestRuleA13_DetachesShareSearches: a hundred that come together cost a few searches, and each gets its record.
func TestRuleA13_DetachesShareSearches(t *testing.T) {
	t.Parallel()
	const n = 100
	d := startDaemon(t)
	d.createMany(n)
	each(t, n, func(ctx context.Context, _ int, name string) error {
		_, err := d.api().Attach(ctx, name, control.Attach{})
		return err
	})
	var all sync.WaitGroup
	var mu sync.Mutex
	searches := map[float64]int{} // no two take exactly as long
	for i := range n {
		all.Go(func() {
			gone, err := d.api().DetachAttested(t.Context(), fmt.Sprint("disk", i), false)
			if err != nil || !searched(gone.Attest) || gone.Attest.Found != 0 {
				t.Errorf("disk %d: %v, %+v", i, err, gone.Attest)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			searches[gone.Attest.Seconds]++
		})
	}
	all.Wait()
	t.Logf("%d detaches shared %d searches", n, len(searches))
	if len(searches) > n/5 {
		t.Errorf("%d detaches took %d searches: %v", n, len(searches), searches)
	}
	records := d.attests()
	for id, r := range records {
		if len(r) != 1 || r[0].Outcome != audit.OK {
			t.Errorf("disk %s: the audit has %+v", id, r)
		}
	}
	if len(records) != n {
		t.Errorf("the audit has records of %d disks", len(records))
	}
}

// TestRuleA13_PlantedKeysAreFound: the test build leaves copies of a key behind, in every form and in memory of every kind.
func TestRuleA13_PlantedKeysAreFound(t *testing.T) {
	t.Parallel()
	places := map[string]string{"heap": "heap", "stack": "heap", "mmap": "/dev/zero"} // goroutines' stacks are cut from the heap
	for form, want := range map[string]struct {
		what   string
		places int
	}{
		"raw": {"round key 1 of the tweak key", 4}, "half": {"round key 0 of the tweak key", 2},
		"schedule": {"round key 7 of the data key, decryption", 15}, "vector": {"round key 3 of the data key, encryption", 60},
		"words": {"round key 3 of the data key, encryption, its words reversed", 15}, "hex": {"bytes 8 to 15 of the key in hex", 4},
	} {
		for place, region := range places {
			t.Run(form+"@"+place, func(t *testing.T) {
				d := keytestDaemon(t, "NBDCRYPT_KEYTEST_PLANT="+form+"@"+place)
				d.start()
				d.do("grant", "create")
				disk := d.create("vol", "4M", "--encrypted")
				d.attach("vol")
				d.betrays(disk, want.what, region, want.places)
			})
		}
	}
}

// betrays detaches a disk whose key must be found at so many places and no others, and told of everywhere.
func (d *daemon) betrays(disk control.Disk, what, region string, places int) {
	t := d.t
	t.Helper()
	r := execute(t, d.command("detach", disk.Name, "--attest", "--json"))
	var gone control.Detached
	check(t, json.Unmarshal([]byte(r.stdout), &gone))
	if r.code != 1 || !searched(gone.Attest) || gone.Attest.Found != places || !strings.Contains(r.stderr, region) || !strings.Contains(r.stderr, "restart the daemon") {
		t.Fatalf("exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	told := false
	for _, h := range gone.Attest.Hits {
		if !strings.Contains(h.Region, region) || h.Layer != disk.Layers[0].ID || !strings.HasPrefix(h.Address, "0x") {
			t.Errorf("a hit that was not planted: %+v", h)
		}
		told = told || h.What == what
	}
	if !told {
		t.Errorf("%s is not in %+v", what, gone.Attest.Hits)
	}
	if records := d.attests()[disk.ID]; len(records) != 1 || records[0].Outcome != audit.Refused || records[0].Code != 1 || !strings.Contains(records[0].Message, region) {
		t.Errorf("the audit has %+v", records)
	}
	if w := strings.Join(d.status().Warnings, "\n"); !strings.Contains(w, "default/"+disk.Name) || !strings.Contains(w, region) {
		t.Errorf("status warns: %s", w)
	}
	if !strings.Contains(d.said(), "is still found in memory") {
		t.Error("the log does not tell")
	}
}

// TestRuleA13_AttestAsAnOrdinaryUser: nobody but root could open the memory file of such a daemon, itself included.
func TestRuleA13_AttestAsAnOrdinaryUser(t *testing.T) {
	t.Parallel()
	d := limitedDaemon(t, 8<<20)
	if info, err := os.Stat(fmt.Sprintf("/proc/%d/mem", d.pid())); err != nil || info.Sys() == nil {
		t.Fatal(err)
	}
	d.create("vol", "4M", "--encrypted")
	d.attach("vol")
	if gone := get[control.Detached](d, "detach", "vol", "--attest"); !searched(gone.Attest) || gone.Attest.Found != 0 {
		t.Errorf("%+v", gone.Attest)
	}
	d.stop()
	var err error
	d.program, err = keytest()
	check(t, err)
	d.env = append(d.env, "NBDCRYPT_KEYTEST_PLANT=raw@heap")
	d.start()
	disk := d.create("other", "4M", "--encrypted")
	d.attach("other")
	d.betrays(disk, "round key 0 of the data key, encryption", "heap", 4)
}

// TestRuleA13_FailedAttachIsAttested: its key was in memory too.
func TestRuleA13_FailedAttachIsAttested(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	disk := d.create("vol", "4M", "--encrypted")
	check(t, os.Rename(disk.Layers[0].Segments[0], d.dir+"/away"))
	d.refused(8, "attach", "vol")
	waitFor(t, "the audit has the search", func() bool { return len(d.attests()[disk.ID]) == 1 })
	if r := d.attests()[disk.ID][0]; r.Outcome != audit.OK {
		t.Errorf("the audit has %+v", r)
	}
}

// A plain disk has no key; that is said, and no search is made.
func TestAttestOfAPlainDisk(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "4M", "--plain")
	d.attach("vol")
	if out := d.do("detach", "vol", "--attest"); out != "vol is detached\nthere was no key of it in memory to search for\n" {
		t.Errorf("it printed %q", out)
	}
	if r := d.attests(); len(r) != 0 {
		t.Errorf("the audit has %+v", r)
	}
}
