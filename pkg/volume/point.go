package volume

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// The kinds of points, which are also what they are called as holders of DEKs and in references.
const (
	SnapshotKind = "snapshot"
	ImageKind    = "image"
	BackupKind   = "backup"
)

// PointKinds are all of them.
var PointKinds = []string{SnapshotKind, ImageKind, BackupKind}

// pointRecord is a point in the catalog, at KIND/ID: a frozen stack that something holds. The stack is its layer with all that stands
// below that.
type pointRecord struct {
	Version int       `json:"v"`
	Kind    string    `json:"kind"`
	ID      uuid.UUID `json:"id"`
	Name    string    `json:"name"`
	Project string    `json:"project"`
	// Disk is what it was made of, which may be gone by now; the zero UUID where it was no disk.
	Disk       uuid.UUID `json:"disk"`
	DiskName   string    `json:"disk_name,omitempty"`
	Layer      uuid.UUID `json:"layer"`
	Size       int64     `json:"size"`
	SectorSize int       `json:"sector_size"`
	Encrypted  bool      `json:"encrypted"`
	Key        string    `json:"key,omitempty"`
	Status     Status    `json:"status"`
	Created    time.Time `json:"created"`
	// Lost says what the disk may have lost before the point was made of it.
	Lost string `json:"lost,omitempty"`
	// Backup is what a backup is besides, and nil for any other kind.
	Backup *backupInfo `json:"backup,omitempty"`
	// From is what an image's data was that is of no disk: a file, or another image.
	From *Source `json:"from,omitempty"`
	// Request made the point; the same request again finds it made.
	Request string `json:"request"`
}

func pointKey(kind string, id uuid.UUID) string   { return kind + "/" + id.String() }
func pointNameKey(kind, project, n string) string { return kind + "-name/" + project + "/" + n }
func pointsOf(disk uuid.UUID, kind string) string {
	return "point-of/" + disk.String() + "/" + kind + "/"
}
func (p pointRecord) key() string     { return pointKey(p.Kind, p.ID) }
func (p pointRecord) nameKey() string { return pointNameKey(p.Kind, p.Project, p.Name) }
func (p pointRecord) ofKey() string   { return pointsOf(p.Disk, p.Kind) + p.ID.String() }
func (p pointRecord) holder() keystore.Holder {
	return keystore.Holder{Kind: p.Kind, ID: p.ID.String()}
}
func (p pointRecord) label() string { return p.Kind + " " + p.Project + "/" + p.Name }

// newPoint is a point that is going to be made of a disk as it is now.
func (s *Service) newPoint(kind, name, request string, d diskRecord) pointRecord {
	return pointRecord{Version: recordVersion, Kind: kind, ID: uuid.New(), Name: name, Project: d.Project, Disk: d.ID, DiskName: d.Name, Layer: d.Top,
		Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted, Key: d.Key, Status: Creating, Created: s.Clock.Now(), Request: request}
}

// maxSnapshots is how many a disk has (rule B12).
const maxSnapshots = 7

// reservePoint puts a point's record with its name into the catalog, while it is being made.
func reservePoint(t catalog.Txn, p pointRecord) error {
	other, err := findPoint(t, p.Kind, p.Project, p.Name)
	if err == nil {
		return refusal.New(refusal.Busy, "choose another name, or delete that one first", "project %s has %s %s already", p.Project, aOrAn(p.Kind), other.Name)
	}
	if refusal.CodeOf(err) != refusal.NotFound {
		return err
	}
	err = errors.Join(put(t, p.key(), p), t.Put(p.nameKey(), []byte(p.ID.String())))
	if err != nil || p.Disk == uuid.Nil {
		return err
	}
	if n, err := t.Count(pointsOf(p.Disk, p.Kind)); err != nil || p.Kind == SnapshotKind && n >= maxSnapshots {
		return errors.Join(err, refusal.New(refusal.Busy, "delete one of them with `nbdcrypt snapshot delete`; `nbdcrypt snapshot list --disk "+p.DiskName+"` shows them",
			"disk %s has %d snapshots, and a disk can't have more", p.DiskName, n))
	}
	return t.Put(p.ofKey(), nil)
}

func aOrAn(kind string) string {
	if kind == ImageKind {
		return "an image"
	}
	return "a " + kind
}

func parsePoint(key string, b []byte) (p pointRecord, err error) {
	err = parse(key, b, &p, &p.Version)
	if err == nil && (p.key() != key || !slices.Contains(PointKinds, p.Kind)) {
		err = fmt.Errorf("%w: record %q is %s %s", catalog.ErrDamaged, key, p.Kind, p.ID)
	}
	return p, err
}

// findPoint looks a point of a kind up by name or id.
func findPoint(r catalog.Reader, kind, project, ref string) (pointRecord, error) {
	id := ref
	if _, err := uuid.Parse(ref); err != nil {
		if err := CheckName(ref); err != nil {
			return pointRecord{}, noPoint(kind, project, ref)
		}
		b, err := r.Get(pointNameKey(kind, project, ref))
		if errors.Is(err, catalog.ErrNotFound) {
			return pointRecord{}, noPoint(kind, project, ref)
		}
		if err != nil {
			return pointRecord{}, err
		}
		id = string(b)
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return pointRecord{}, fmt.Errorf("%w: record %q names %q", catalog.ErrDamaged, pointNameKey(kind, project, ref), id)
	}
	p, err := get(r, pointKey(kind, parsed), parsePoint)
	if errors.Is(err, catalog.ErrNotFound) && id != ref {
		return p, fmt.Errorf("%w: record %q names %s %s, whose record is missing", catalog.ErrDamaged, pointNameKey(kind, project, ref), kind, id)
	}
	if errors.Is(err, catalog.ErrNotFound) || err == nil && p.Project != project {
		return pointRecord{}, noPoint(kind, project, ref)
	}
	return p, err
}

func noPoint(kind, project, ref string) error {
	return refusal.New(refusal.NotFound, "`nbdcrypt "+kind+" list --project "+project+"` shows what is there",
		"project %s has no %s %.200q", project, kind, ref)
}
