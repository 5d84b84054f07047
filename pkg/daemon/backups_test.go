package daemon

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// exportOf is a backup's file, by way of the API.
func exportOf(t *testing.T, d *Daemon, name string) []byte {
	t.Helper()
	return []byte(must(t, d, "POST /v1/backups/"+name+"/export", ""))
}

// sent is an upload of a backup: its header, and what comes from a byte on.
func sent(t *testing.T, file []byte, from int) string {
	t.Helper()
	var b bytes.Buffer
	f := control.NewFrameWriter(&b)
	for _, p := range [][]byte{file[:min(len(file), backup.HeaderSize)], file[min(len(file), from):]} {
		if _, err := f.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.End(int64(min(len(file), backup.HeaderSize) + len(file[min(len(file), from):]))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func offer(file []byte) string {
	return fmt.Sprintf(`{"header":%q}`, base64.StdEncoding.EncodeToString(file[:backup.HeaderSize]))
}

// job makes a call that is answered with a job, and gives how that ended.
func (d *Daemon) job202(t *testing.T, route, body string) control.Job {
	t.Helper()
	return d.awaitJob(t, must(t, d, route, body))
}

// backups has the walker carry a backup away and back.
func (w *walker) backups() {
	w.t.Helper()
	file := []byte(w.ask(control.RouteBackupExport, "monday", "", "", nbd.Peer{}))
	w.ask(control.RouteBackupDelete, "monday", "", "", nbd.Peer{})
	w.ask(control.RouteBackupDelete, "monday", "?yes=true", "", nbd.Peer{})
	w.ask(control.RouteBackupOffer, "", "", offer(file), nbd.Peer{})
	w.ask(control.RouteBackupImport, "", "?from=9", sent(w.t, file, 9), nbd.Peer{})
	w.ask(control.RouteBackupImport, "", "", sent(w.t, file, 0), nbd.Peer{})
}

// startBackup is a daemon with a disk vault and a backup of it, monday.
func startBackup(t *testing.T) *Daemon {
	t.Helper()
	d := start(t)
	must(t, d, control.RouteKeyCreate, `{"alias":"mine"}`)
	must(t, d, control.RouteDiskCreate, `{"name":"vault","size":4194304,"key":"mine"}`)
	must(t, d, "POST /v1/disks/vault/attach", "{}")
	if _, err := d.attachments()[0].Device.WriteAt(bytes.Repeat(knownText, 100), 5000); err != nil {
		t.Fatal(err)
	}
	if j := d.job202(t, control.RouteBackupCreate, `{"name":"monday","disk":"vault"}`); j.State != control.JobDone {
		t.Fatalf("%+v", j)
	}
	return d
}

// A backup goes out and comes back in, in one piece or in several; what was cut off goes on where it was, and what is wrong is found.
func TestBackupsTravel(t *testing.T) {
	d := startBackup(t)
	file := exportOf(t, d, "monday")
	if bytes.Contains(file, knownText) {
		t.Error("it holds plaintext")
	}
	body := len(file) - backup.HeaderSize
	for _, from := range []int{0, 5000, 100_000, len(file)} {
		part := []byte(must(t, d, fmt.Sprintf("POST /v1/backups/monday/export?from=%d", from), ""))
		from = min(from, body)
		same := max(64, body-from) // the trailer says when it was made
		if len(part) != len(file)-from || !bytes.Equal(part[:same], file[from:][:same]) {
			t.Errorf("from %d comes something else", from)
		}
	}
	must(t, d, "DELETE /v1/backups/monday?yes=true", "")
	// Cut off: what arrived is kept, and known by the header.
	if code := codeIn(by(t, d, 0, control.RouteBackupImport, sent(t, file[:150_000], 0), refusal.Failed)); code != refusal.Failed {
		t.Error(code)
	}
	offered := read[control.BackupOffered](t, must(t, d, control.RouteBackupOffer, offer(file)))
	if offered.Have != 150_000 {
		t.Fatalf("%d bytes are here", offered.Have)
	}
	by(t, d, 0, control.RouteBackupImport+"?from=3", sent(t, file, 3), refusal.Busy)
	j := d.job202(t, control.RouteBackupImport+"?from=150000", sent(t, file, 150_000))
	if j.State != control.JobDone {
		t.Fatalf("%+v", j.Error)
	}
	by(t, d, 0, control.RouteBackupOffer, offer(file), refusal.Busy) // it is here
	if j := d.job202(t, control.RouteDiskCreate, `{"name":"again","from_backup":"monday","encrypted":false}`); j.State != control.JobDone {
		t.Fatalf("%+v", j.Error)
	}
	must(t, d, "POST /v1/disks/again/attach", "{}")
	got := make([]byte, len(knownText))
	if _, err := d.attachments()[1].Device.ReadAt(got, 5000); err != nil || !bytes.Equal(got, knownText) {
		t.Errorf("what came back differs: %v", err)
	}
}

// One flipped byte in a transfer is found before the backup counts, and what came of it does not stay.
func TestDamagedBackupIsNotImported(t *testing.T) {
	d := startBackup(t)
	file := exportOf(t, d, "monday")
	must(t, d, "DELETE /v1/backups/monday?yes=true", "")
	for _, at := range []int{5000, backup.HeaderSize + backup.PageSize + 77, len(file) - 1, len(file) - 3000} {
		spoiled := bytes.Clone(file)
		spoiled[at] ^= 4
		if j := d.job202(t, control.RouteBackupImport, sent(t, spoiled, 0)); j.Error == nil || j.Error.Code != int(refusal.Damaged) {
			t.Errorf("byte %d: %+v", at, j)
		}
		if list := must(t, d, control.RouteBackupList, ""); strings.TrimSpace(list) != "[]" {
			t.Errorf("byte %d: it is there: %s", at, list)
		}
	}
	by(t, d, 0, control.RouteBackupImport, sent(t, append(bytes.Clone(file), 0), 0), refusal.Damaged)
	left, err := filepath.Glob(filepath.Join(d.o.Backups, "*"))
	if err != nil || len(left) > 1 { // of the last one, which may go on without its last byte
		t.Errorf("left are %v, %v", left, err)
	}
}

// Another store's backup needs that store's public key, can then be verified, and says that its key is not here.
func TestBackupOfAnotherStore(t *testing.T) {
	there, here := startBackup(t), start(t)
	file := exportOf(t, there, "monday")
	key := read[control.BackupKey](t, must(t, there, control.RouteBackupKey, ""))
	if answer := by(t, here, 0, control.RouteBackupOffer, offer(file), refusal.Usage); !strings.Contains(answer, "--public-key") {
		t.Error(answer)
	}
	raw, err := base64.StdEncoding.DecodeString(key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	query := "?public=" + strings.NewReplacer("+", "%2B", "/", "%2F", "=", "%3D").Replace(base64.StdEncoding.EncodeToString(raw))
	if j := here.job202(t, control.RouteBackupImport+query, sent(t, file, 0)); j.State != control.JobDone {
		t.Fatalf("%+v", j.Error)
	}
	if j := here.job202(t, "POST /v1/backups/monday/verify", ""); j.State != control.JobDone {
		t.Errorf("%+v", j.Error)
	}
	answer := by(t, here, 0, control.RouteDiskCreate, `{"name":"again","from_backup":"monday"}`, refusal.KeyForbids)
	if !strings.Contains(answer, "not here") {
		t.Error(answer)
	}
}

// A backup directory that can't be written, or a full one, is told, and the disk goes on.
func TestBackupDirectoryThatCantBeUsed(t *testing.T) {
	d := startBackup(t)
	d.volumes.Config.Backups = filepath.Join(d.o.Backups, "file")
	if err := os.WriteFile(d.volumes.Config.Backups, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	j := d.job202(t, control.RouteBackupCreate, `{"name":"tuesday","disk":"vault"}`)
	if j.Error == nil || j.Error.Code != int(refusal.Failed) || !strings.Contains(j.Error.Hint, "--backups") {
		t.Errorf("%+v", j)
	}
	if _, err := d.attachments()[0].Device.WriteAt(knownText, 0); err != nil {
		t.Error(err)
	}
}
