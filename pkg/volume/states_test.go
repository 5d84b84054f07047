package volume_test

import (
	"os"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// mayBe says for each verb of the table whether it is done, y, or refused, n, with a disk that is: available, in-use, in-use and shared,
// error, error_deleting, error_extending, error_restoring, error_rollbacking.
var mayBe = map[string]string{
	"made":               "nnnyynyn",
	"restored":           "nnnyynyn",
	"made from an image": "nnnyynyn",
	"attached":           "ynynnyny",
	"detached":           "nyynnnnn",
	"taken over":         "ynnnnyny",
	"extended":           "yyynnyny",
	"deleted":            "ynnyyyyy",
	"checked":            "yyyyyyyy",
	"exported":           "ynnnnyny",
	"escrowed":           "yyynnyny",
	"re-wrapped":         "yyynnyny",
	"made a snapshot of": "yyynnyny",
	"rolled back":        "ynnnnyny",
	"re-keyed":           "yyynnyny",
	"backed up":          "yyynnyny",
	"made an image of":   "yyynnyny",
}

// restingIn makes a disk of each status that disks rest in, in the order of mayBe.
func restingIn(t *testing.T, r *rig) (names []string) {
	for _, status := range []volume.Status{volume.Available, volume.InUse, volume.InUse, volume.Error, volume.ErrorDeleting, volume.ErrorExtending,
		volume.ErrorRestoring, volume.ErrorRollbacking} {
		s := volume.Spec{Project: "default", Name: strings.ReplaceAll(string(status), "_", "-"), Size: mib, SectorSize: 512}
		if len(names) == 2 {
			s.Name, s.Shared = "shared", true
		}
		names = append(names, s.Name)
		r.create(s)
		if status == volume.InUse {
			r.attach(s.Name)
		}
		if cut, is := map[volume.Status]volume.Status{volume.Error: volume.Creating, volume.ErrorDeleting: volume.Deleting,
			volume.ErrorExtending: volume.Extending, volume.ErrorRestoring: volume.RestoringBackup, volume.ErrorRollbacking: volume.Rollbacking}[status]; is {
			must(t, r.Cut(t.Context(), s.Name, cut))
		}
		if d, err := r.Get(t.Context(), "default", s.Name); err != nil || d.Status != status {
			t.Fatalf("%s is %q, not %q: %v", s.Name, d.Status, status, err)
		}
	}
	return names
}

// TestRuleB10_StatusesAndVerbs walks the whole table, with disks that are in each status.
func TestRuleB10_StatusesAndVerbs(t *testing.T) {
	r := newRig(t)
	names := restingIn(t, r)
	if len(volume.Verbs()) != len(mayBe) {
		t.Errorf("%d verbs are in the table, %d are tried", len(volume.Verbs()), len(mayBe))
	}
	for _, verb := range volume.Verbs() {
		for i, name := range names {
			before, err := r.Get(t.Context(), "default", name)
			must(t, err)
			done, err := r.Begin(t.Context(), name, verb)
			if (err == nil) != (mayBe[verb][i] == 'y') {
				t.Errorf("a disk that is %s (%s) can be %s: %v", before.Status, name, verb, err)
			}
			if err != nil {
				wantRefused(t, err, name, before.Status)
				continue
			}
			if volume.Claims(verb) {
				meanwhile(t, r, name, verb, before.Status)
			}
			done()
		}
	}
}

// Every word is in the docs, and the docs have no other.
func TestRuleB10_StatusesAreDocumented(t *testing.T) {
	page, err := os.ReadFile("../../docs/cli.md")
	must(t, err)
	_, section, _ := strings.Cut(string(page), "## What a disk is doing")
	section, _, _ = strings.Cut(section, "\n## ")
	documented := map[string]bool{}
	for _, row := range strings.Split(section, "\n") {
		if cells := strings.Split(row, "|"); len(cells) > 3 {
			for i, word := range strings.Split(cells[1], "`") {
				if i%2 == 1 {
					documented[word] = true
				}
			}
		}
	}
	for _, status := range volume.Statuses() {
		if !documented[string(status)] {
			t.Errorf("%q is not documented", status)
		}
		delete(documented, string(status))
	}
	if len(documented) > 0 {
		t.Errorf("documented, but no disk is ever: %v", documented)
	}
}

// wantRefused holds a refusal to naming the disk, its status, and what to do.
func wantRefused(t *testing.T, err error, name string, status volume.Status) {
	t.Helper()
	wantCode(t, err, refusal.Busy)
	if f := refusal.From(err); !strings.Contains(f.Message, name) || !strings.Contains(f.Message, string(status)) || strings.Contains(f.Hint, "NAME") {
		t.Errorf("a disk that is %s is refused with: %s; %s", status, f.Message, f.Hint)
	}
}

// meanwhile tries every verb on a disk that something is done to: all are refused, and all say what goes on.
func meanwhile(t *testing.T, r *rig, name, doing string, before volume.Status) {
	t.Helper()
	want := volume.Doing(doing)
	if want == "" || want == volume.Checking && before == volume.InUse {
		want = before
	}
	if d, err := r.Get(t.Context(), "default", name); err != nil || d.Status != want {
		t.Errorf("while it is %s, the disk %s is %q, not %q: %v", doing, name, d.Status, want, err)
	}
	for _, verb := range volume.Verbs() {
		_, err := r.Begin(t.Context(), name, verb)
		if err == nil {
			t.Fatalf("a disk is %s while it is %s", verb, doing)
		}
		wantRefused(t, err, name, volume.Doing(doing))
	}
}

// TestRuleB10_FailedExtension: a disk whose extension met an error says so, is as usable as before, and forgets it once one succeeds.
func TestRuleB10_FailedExtension(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	r.faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpResize {
			return syscall.ENOSPC
		}
		return nil
	})
	_, err := r.Extend(t.Context(), "e", "default", "vault", 8*mib)
	wantCode(t, err, refusal.Failed)
	r.faults.Hook(nil)
	status := func() volume.Status {
		d, err := r.Get(t.Context(), "default", "vault")
		must(t, err)
		return d.Status
	}
	if got := status(); got != volume.ErrorExtending {
		t.Errorf("after an extension that failed the disk is %s", got)
	}
	r.attach("vault")
	if got := status(); got != volume.InUse {
		t.Errorf("attached it is %s", got)
	}
	_, err = r.detach("vault")
	must(t, err)
	d, err := r.Extend(t.Context(), "e2", "default", "vault", 8*mib)
	if must(t, err); d.Status != volume.Available || d.Size != 8*mib {
		t.Errorf("after an extension: %s, %d bytes", d.Status, d.Size)
	}
}
