package volume

import (
	"context"
	"encoding/hex"
	"fmt"
	"os"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/catalog"
)

// open opens the disk as it was frozen, by the keys that the disk has, and the cipher of the file.
func (m *backingUp) open(ctx context.Context, p pointRecord) error {
	s := m.s
	layers, fresh, err := m.layers(ctx, p)
	if err != nil {
		return err
	}
	m.stack, err = s.openStack(ctx, holder(m.disk), p.Project, p.label(), layers, p.Size, stackOptions{ReadOnly: true, Frozen: true})
	if err != nil {
		return err
	}
	for _, l := range m.stack.opened()[:fresh] {
		m.fresh = append(m.fresh, mapped{l.Layer, l.size})
	}
	if err := m.work.released(m.stack); err != nil {
		return err
	}
	m.file, _, err = s.fileCipher(ctx, p)
	return err
}

// layers reads the frozen stack, and tells how many layers of it the base does not have: all where there is no base, or where the disk does not
// stand on it any more.
func (m *backingUp) layers(ctx context.Context, p pointRecord) (layers []layerRecord, fresh int, err error) {
	err = m.s.Catalog.View(ctx, func(r catalog.Reader) error {
		if layers, err = m.s.layersOf(r, p); err != nil || m.base == nil {
			return err
		}
		now, err := get(r, m.base.key(), parsePoint) // its layer may be another by now, or none
		if err != nil || now.Layer == uuid.Nil {
			fresh = -1
			return err
		}
		base, err := m.s.layersFrom(r, now.Layer)
		if err != nil {
			return err
		}
		fresh = slices.IndexFunc(layers, func(l layerRecord) bool { return l.ID == base[0].ID })
		return nil
	})
	if m.base == nil {
		return layers, len(layers), err
	}
	if fresh < 0 {
		m.full = "the disk does not stand any more on what it was at its backup " + m.base.Name + " (it was rolled back, or got a new key)"
		m.base, fresh = nil, len(layers)
	}
	return layers, fresh, err
}

// write writes the file, and then has the catalog know that it is there.
func (m *backingUp) write(ctx context.Context, request string, p *pointRecord) (err error) {
	s := m.s
	s.tree.RLock()
	err = m.open(ctx, *p)
	s.tree.RUnlock()
	defer m.close()
	if err != nil {
		return err
	}
	f, err := os.OpenFile(s.backupPath(p.ID, partSuffix), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return explainFull(fmt.Errorf("backup %s: %w", p.Name, err))
	}
	defer f.Close()
	if err := m.writeTo(ctx, f, p); err != nil {
		return explainFull(err)
	}
	if err := s.keepBackup(f, p.ID); err != nil {
		return err
	}
	return s.update(ctx, request+"/backup", func(t catalog.Txn) error {
		now, err := get(t, p.key(), parsePoint)
		if err != nil {
			return err
		}
		now.Backup, now.Status = p.Backup, Available
		*p = now
		return put(t, p.key(), now)
	})
}

// writeTo writes body and trailer.
func (m *backingUp) writeTo(ctx context.Context, f *os.File, p *pointRecord) error {
	total, err := dataIn(ctx, m.fresh, p.Size)
	if err != nil {
		return err
	}
	if err := m.s.backupRoom(total); err != nil {
		return err
	}
	head := p.fileHeader()
	if m.base != nil {
		manifest, err := m.base.manifest()
		if err != nil {
			return err
		}
		head.Parent, head.ParentManifest, head.Depth = m.base.ID, manifest, m.base.Backup.Depth+1
	}
	w := backup.NewWriter(ctx, eagerFile{f}, head, fillFrom(m.stack.Device, p.Size, m.file, p.SectorSize), func(n int64) { m.work.progress(n, total) })
	defer w.Close()
	if err := eachExtent(ctx, m.fresh, p.Size, m.base != nil, w.Add); err != nil {
		return err
	}
	head, manifest, err := w.Finish()
	if err != nil {
		return err
	}
	p.Backup.Parent, p.Backup.Depth, p.Backup.Manifest = head.Parent, head.Depth, hex.EncodeToString(manifest[:])
	p.Backup.Data, p.Backup.Length = head.Data, head.Length()
	tail, err := m.s.trailer(ctx, *p)
	if err == nil {
		_, err = f.WriteAt(tail, head.Body())
	}
	return err
}

// fileHeader is what the file of a full backup says of it.
func (p pointRecord) fileHeader() backup.Header {
	return backup.Header{ID: p.ID, Store: p.Backup.Store, Disk: p.Disk, Encrypted: p.Encrypted, Size: p.Size, Taken: p.Created, SectorSize: p.SectorSize,
		DiskName: p.DiskName, Name: p.Name, Project: p.Project}
}

// trailer makes the end of a file, with the DEK as it is wrapped now.
func (s *Service) trailer(ctx context.Context, p pointRecord) ([]byte, error) {
	manifest, err := p.manifest()
	if err != nil {
		return nil, err
	}
	t := backup.Trailer{ID: p.ID, Manifest: manifest, Written: s.Clock.Now(), Public: p.Backup.Public}
	if p.Encrypted {
		if t.Record, err = s.Keys.CarryDEK(ctx, p.holder(), p.fileLayer()); err != nil {
			return nil, err
		}
	}
	return t.Encode(func(message []byte) ([]byte, error) { return s.Keys.Sign(ctx, message) })
}

func (m *backingUp) close() {
	wipeFile(m.file)
	if m.stack == nil {
		return
	}
	if err := m.stack.close(nil); err != nil {
		m.s.Log.Warn("closing what a backup was made of", "disk", m.disk.Name, "err", err)
	}
}
