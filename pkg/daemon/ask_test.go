package daemon

import (
	"slices"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// TestDetachOnlyAsked: whoever asks what a detach would do is told which attachment would end, or why none does; nothing ends, and nothing is
// recorded but refusals.
func TestDetachOnlyAsked(t *testing.T) {
	o := options(t)
	run(t, o)
	c := client(o)
	made := sharing(t, c, 2)
	for _, want := range []control.Detached{
		{Disk: "quorum", Attachment: made[1].Attachment, Left: 1},
		{Disk: "quorum", Attachment: made[0].Attachment, Left: 1},
	} {
		how := control.DetachHow{Ask: true}
		if want.Attachment == made[0].Attachment {
			how.Attachment = want.Attachment
		}
		if got, err := c.DetachAs(t.Context(), "quorum", how); err != nil || got.Disk != want.Disk || got.Attachment != want.Attachment || got.Left != want.Left {
			t.Errorf("%+v: %+v, %v", how, got, err)
		}
	}
	if _, err := c.Detach(t.Context(), "quorum", false); err != nil {
		t.Fatal(err)
	}
	key, err := c.KeyCreate(t.Context(), control.KeyCreate{Alias: "k"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.DiskRewrap(t.Context(), "quorum", key.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := c.KeyDisable(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DetachAs(t.Context(), "quorum", control.DetachHow{Ask: true}); refusal.CodeOf(err) != refusal.Confirm {
		t.Errorf("the last of a disk whose key is disabled: %v", err)
	}
	if _, err := c.DetachAs(t.Context(), "quorum", control.DetachHow{Ask: true, Yes: true}); err != nil {
		t.Errorf("the same with a yes: %v", err)
	}
	if d, err := c.DiskShow(t.Context(), "quorum"); err != nil || len(d.Attachments) != 1 || d.Attachments[0].ID != made[0].Attachment {
		t.Errorf("left: %+v, %v", d.Attachments, err)
	}
	if _, err := c.Detach(t.Context(), "quorum", true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.DetachAs(t.Context(), "quorum", control.DetachHow{Ask: true}); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("a disk that is not attached: %v", err)
	}
	var outcomes []string
	err = c.AuditList(t.Context(), control.AuditFilter{Verb: "detach"}, func(rec control.AuditRecord) error {
		outcomes = append(outcomes, rec.Outcome)
		return nil
	})
	if want := []string{"ok", "refused", "ok", "refused"}; err != nil || !slices.Equal(outcomes, want) {
		t.Errorf("recorded: %v, %v", outcomes, err)
	}
}
