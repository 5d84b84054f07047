package daemon

import (
	"slices"
	"testing"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// sharing makes a shared disk and attaches it n times.
func sharing(t *testing.T, c *control.Client, n int) (made []control.Attached) {
	t.Helper()
	encrypted := true
	if _, err := c.GrantCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d, err := c.DiskCreate(t.Context(), control.DiskCreate{Name: "quorum", Size: 1 << 20, Encrypted: &encrypted, Shared: true}); err != nil || !d.Shared {
		t.Fatal(d, err)
	}
	for range n {
		at, err := c.Attach(t.Context(), "quorum", control.Attach{})
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, at)
	}
	return made
}

// TestRuleB14_OneExportForAll: attachments of a shared disk have ids of their own and one export, which lives as long as any of them; each
// leaves its record, and the search of memory comes with the last.
func TestRuleB14_OneExportForAll(t *testing.T) {
	o := options(t)
	stop := run(t, o)
	c := client(o)
	made := sharing(t, c, 3)
	nc, err := nbdclient.Dial(t.Context(), made[0].URI)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Disconnect()
	shown, err := c.DiskShow(t.Context(), "quorum")
	if err != nil || len(shown.Attachments) != 3 || !shown.Shared {
		t.Fatalf("%+v, %v", shown, err)
	}
	for i, at := range shown.Attachments {
		if at.ID != made[i].Attachment || at.URI != made[0].URI || at.Clients != 1 || at.By == "" {
			t.Errorf("attachment %d: %+v of %+v", i, at, made[i])
		}
	}
	for _, step := range []struct {
		how   control.DetachHow
		ended int
	}{{control.DetachHow{Attachment: made[1].Attachment, Attest: true}, 1}, {control.DetachHow{}, 2}} {
		gone, err := c.DetachAs(t.Context(), "quorum", step.how)
		if err != nil || gone.Attachment != made[step.ended].Attachment || gone.Left == 0 || gone.Attest != nil || gone.Clients != 0 {
			t.Errorf("detached: %+v, %v", gone, err)
		}
	}
	if _, err := nc.WriteAt([]byte("still there"), 0); err != nil {
		t.Errorf("with one attachment left: %v", err)
	}
	gone, err := c.DetachAs(t.Context(), "quorum", control.DetachHow{Attest: true})
	if err != nil || gone.Left != 0 || gone.Attest == nil || gone.Clients != 1 {
		t.Errorf("the last: %+v, %v", gone, err)
	}
	var verbs []string
	err = c.AuditList(t.Context(), control.AuditFilter{}, func(rec control.AuditRecord) error {
		if rec.Verb == "attach" || rec.Verb == "detach" || rec.Verb == "attest" {
			verbs = append(verbs, rec.Verb+" "+rec.Outcome)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(verbs)
	if want := []string{"attach ok", "attach ok", "attach ok", "attest ok", "detach ok", "detach ok", "detach ok"}; !slices.Equal(verbs, want) {
		t.Errorf("recorded: %v", verbs)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// Stopping ends all attachments of a disk at once.
func TestRuleB14_StopEndsAll(t *testing.T) {
	o := options(t)
	stop := run(t, o)
	sharing(t, client(o), 2)
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	run(t, o)
	d, err := client(o).DiskShow(t.Context(), "quorum")
	if err != nil || d.Status != "available" || len(d.Warnings) != 0 {
		t.Errorf("after a stop: %s, %v, %v", d.Status, d.Warnings, err)
	}
	_, err = client(o).Detach(t.Context(), "quorum", false)
	if refusal.CodeOf(err) != refusal.Busy {
		t.Error(err)
	}
}
