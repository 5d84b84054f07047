package volume_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// What copies data that is damaged ends with the exit code of damage, and says what to do: it is no failure of the moment.
func TestCopyingDamagedDataSaysSo(t *testing.T) {
	r := newRig(t)
	r.create(volume.Spec{Project: "default", Name: "vault", Size: 4 * mib, SectorSize: 512, Encrypted: true})
	r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 0, mib) })
	d, err := r.Get(t.Context(), "default", "vault")
	must(t, err)
	r.snap("vault", "one")
	_, err = r.CreateImage(t.Context(), "image", volume.ImageOf{Project: "default", Disk: "vault", Name: "golden"})
	must(t, err)
	file, err := os.OpenFile(d.Layers[0].Segments[0], os.O_WRONLY, 0)
	must(t, err)
	_, err = file.WriteAt(make([]byte, 4096), 0)
	must(t, err)
	must(t, file.Close())
	_, err = r.CopyImage(t.Context(), "copy", "default", "golden", volume.ImageSpec{Project: "default", Name: "second", Encrypted: true}, volume.Work{})
	wantCode(t, err, refusal.Damaged)
	_, err = r.CreateBackup(t.Context(), "backup", volume.BackupSpec{Project: "default", Disk: "vault", Name: "b"}, volume.Work{})
	wantCode(t, err, refusal.Damaged)
	_, err = r.Rekey(t.Context(), "rekey", "default", "vault", volume.Work{})
	wantCode(t, err, refusal.Damaged)
	// What is written anew is whole again, and the re-key goes on.
	r.with("vault", func(a *volume.Attachment) { r.writes(a, 'b', 0, 4096) })
	_, err = r.Rekey(t.Context(), "rekey again", "default", "vault", volume.Work{})
	must(t, err)
	r.with("vault", func(a *volume.Attachment) {
		r.reads(a, 'b', 0, 4096)
		r.reads(a, 'a', 4096, mib-4096)
	})
}

// A fill whose copying reaches less than its walk of the maps does ends, instead of beginning anew for ever.
func TestAFillThatCanNotEndSaysSo(t *testing.T) {
	r := newRig(t)
	r.create(volume.Spec{Project: "default", Name: "vault", Size: 4 * mib, SectorSize: 512, Encrypted: true})
	r.with("vault", func(a *volume.Attachment) { r.writes(a, 'a', 3*mib, mib) })
	r.snap("vault", "one")
	d, err := r.Get(t.Context(), "default", "vault")
	must(t, err)
	r.snap("vault", "two")
	must(t, r.Shrink(t.Context(), uuid.MustParse(d.Layers[0].ID), mib)) // it hides what stands below it
	ctx, stop := context.WithTimeout(t.Context(), 20*time.Second)
	defer stop()
	_, err = r.Rekey(ctx, "rekey", "default", "vault", volume.Work{})
	wantCode(t, err, refusal.Damaged)
	if !strings.Contains(fmt.Sprint(err), "1048576 bytes of the layers below") {
		t.Error(err)
	}
}
