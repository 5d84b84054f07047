package cli

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// fakeSigner signs the backups of every fake.
var fakeSigner = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{5}, ed25519.SeedSize))

func fakePublic() ed25519.PublicKey { return fakeSigner.Public().(ed25519.PublicKey) }

// fakeFile makes the file of a backup that holds a few blocks.
func fakeFile(b *control.Backup, blocks int64) []byte {
	h := backup.Header{ID: uuid.MustParse(b.ID), Store: uuid.MustParse("5e000000-0000-4000-8000-000000000000"), Disk: uuid.MustParse(b.Disk.ID), Size: b.Size,
		Taken: b.Created, SectorSize: b.SectorSize, DiskName: b.Disk.Name, Name: b.Name, Project: b.Project}
	var body buffer
	w := backup.NewWriter(context.Background(), &body, h, func(p []byte, off int64) error { clear(p); p[0] = byte(off >> 12); return nil }, func(int64) {})
	defer w.Close()
	err := w.Add(backup.Extent{Block: 1, Count: blocks})
	if err != nil {
		panic(err)
	}
	h, manifest, err := w.Finish()
	if err != nil {
		panic(err)
	}
	tail, err := backup.Trailer{ID: h.ID, Manifest: manifest, Written: b.Created, Public: fakePublic()}.Encode(func(m []byte) ([]byte, error) { return ed25519.Sign(fakeSigner, m), nil })
	if err != nil {
		panic(err)
	}
	b.Length, b.Data, b.Manifest, b.Store = h.Length(), h.Data, manifest.String(), h.Store.String()
	return append(body, tail...)
}

// buffer is a file in memory.
type buffer []byte

func (b *buffer) WriteAt(p []byte, off int64) (int, error) {
	if need := int(off) + len(p); need > len(*b) {
		*b = append(*b, make([]byte, need-len(*b))...)
	}
	return copy((*b)[off:], p), nil
}

func (f *fake) backupRoutes(mux *http.ServeMux, handle func(string, func(*http.Request) (any, error))) {
	handle(control.RouteBackupCreate, func(r *http.Request) (any, error) {
		var ask control.BackupCreate
		if err := control.ReadJSON(r, &ask); err != nil {
			return nil, err
		}
		d, err := f.disk(ask.Disk)
		if err != nil {
			return nil, err
		}
		if _, err := f.backup(ask.Name); err == nil {
			return nil, refusal.New(refusal.Busy, "choose another name", "backup %s exists already", ask.Name)
		}
		b := &control.Backup{ID: f.id(), Name: ask.Name, Project: "default", Disk: control.BackupOf{ID: d.ID, Name: d.Name}, Size: d.Size, SectorSize: d.SectorSize,
			Status: "available", Created: moment0(), PublicKey: base64.StdEncoding.EncodeToString(fakePublic()), Full: "the disk has no backup yet"}
		f.files = append(f.files, fakeFile(b, 3))
		f.backups = append(f.backups, b)
		return b, nil
	})
	handle(control.RouteBackupList, func(r *http.Request) (any, error) { return control.List(f.backups), nil })
	handle(control.RouteBackupShow, func(r *http.Request) (any, error) { return f.backup(r.PathValue("backup")) })
	handle(control.RouteBackupVerify, func(r *http.Request) (any, error) {
		b, err := f.backup(r.PathValue("backup"))
		if err != nil {
			return nil, err
		}
		return control.BackupVerified{Backups: []control.Backup{*b}, Missing: []control.BackupOf{}}, nil
	})
	handle(control.RouteBackupDelete, func(r *http.Request) (any, error) {
		b, err := f.backup(r.PathValue("backup"))
		if err != nil {
			return nil, err
		}
		if r.URL.Query().Get(control.QueryYes) != "true" {
			return nil, refusal.New(refusal.Confirm, "", "backup %s will be deleted", b.Name)
		}
		f.backups = slices.DeleteFunc(f.backups, func(o *control.Backup) bool { return o == b })
		return struct{}{}, nil
	})
	handle(control.RouteBackupPrune, func(r *http.Request) (any, error) {
		var ask control.BackupPrune
		if err := control.ReadJSON(r, &ask); err != nil {
			return nil, err
		}
		n := max(0, len(f.backups)-ask.Keep)
		if n > 0 && r.URL.Query().Get(control.QueryYes) != "true" {
			return nil, refusal.New(refusal.Confirm, "", "these backups will be deleted: %d", n)
		}
		out := control.BackupPruned{Deleted: []control.Backup{}}
		for _, b := range f.backups[:n] {
			out.Deleted = append(out.Deleted, *b)
		}
		f.backups = f.backups[n:]
		return out, nil
	})
	handle(control.RouteBackupKey, func(*http.Request) (any, error) {
		public := fakePublic()
		if f.elsewhere {
			public = make(ed25519.PublicKey, ed25519.PublicKeySize)
		}
		der, err := x509.MarshalPKIXPublicKey(public)
		return control.BackupKey{Store: "5e000000-0000-4000-8000-000000000000", Algorithm: "Ed25519", PublicKey: base64.StdEncoding.EncodeToString(public),
			PEM: string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))}, err
	})
	handle(control.RouteBackupOffer, func(r *http.Request) (any, error) {
		var ask control.BackupOffer
		if err := control.ReadJSON(r, &ask); err != nil {
			return nil, err
		}
		h, err := backup.DecodeHeader(ask.Header)
		return control.BackupOffered{ID: h.ID.String(), Have: f.have}, err
	})
	handle(control.RouteBackupImport, f.backupImport)
	mux.HandleFunc(control.RouteBackupExport, f.backupExport)
}

// backupImport keeps what was sent, and has a job answer.
func (f *fake) backupImport(r *http.Request) (any, error) {
	sent, err := io.ReadAll(control.NewFrameReader(r.Body, 1<<40))
	if err != nil {
		return nil, err
	}
	f.imported = sent
	h, err := backup.DecodeHeader(sent[:min(len(sent), backup.HeaderSize)])
	if err != nil {
		return nil, err
	}
	b := control.Backup{ID: h.ID.String(), Name: h.Name, Project: "default", Size: h.Size, SectorSize: h.SectorSize, Status: "available", Created: h.Taken, Imported: true}
	return f.jobs.Start(control.Job{Verb: "backup import", Unit: "bytes"}, func(context.Context, func(done, total int64)) (any, error) { return b, nil })
}

func (f *fake) backupExport(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, r.Method+" "+r.URL.RequestURI())
	b, err := f.backup(r.PathValue("backup"))
	if f.refuse != nil {
		err = f.refuse
	}
	if err != nil {
		control.WriteError(w, err)
		return
	}
	file := f.files[slices.Index(f.backups, b)]
	from, _ := strconv.Atoi(r.URL.Query().Get(control.QueryFrom))
	from = min(from, len(file)-backup.HeaderSize)
	w.Header().Set(control.HeaderSize, strconv.Itoa(len(file)))
	w.Header().Set(control.HeaderFrom, strconv.Itoa(from))
	if f.breaks > 0 {
		_, _ = w.Write(file[from:f.breaks])
		panic(http.ErrAbortHandler)
	}
	_, _ = io.Copy(w, strings.NewReader(string(file[from:])))
}

func (f *fake) backup(name string) (*control.Backup, error) {
	for _, b := range f.backups {
		if b.Name == name || b.ID == name {
			return b, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt backup list` shows what is there", "no backup %s", name)
}
