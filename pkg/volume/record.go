package volume

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/layer"
)

// recordVersion is the version of every record of this package.
const recordVersion = 1

// diskRecord is a disk in the catalog, at disk/ID.
type diskRecord struct {
	Version    int       `json:"v"`
	ID         uuid.UUID `json:"id"`
	Name       string    `json:"name"`
	Project    string    `json:"project"`
	Size       int64     `json:"size"`
	SectorSize int       `json:"sector_size"`
	Encrypted  bool      `json:"encrypted"`
	Key        string    `json:"key,omitempty"`
	Status     Status    `json:"status"`
	Top        uuid.UUID `json:"top"`
	Epoch      uint64    `json:"epoch"`
	Created    time.Time `json:"created"`
	// HideHoles has clients see no hole. A record from before there was a choice has none; a build from then refuses one that has it.
	HideHoles bool `json:"hide_holes,omitempty"`
	// Bootable disks were made to boot a server from.
	Bootable bool `json:"bootable,omitempty"`
	// Shared lets it be attached several times at once (rule B14).
	Shared bool `json:"shared,omitempty"`
	// Source is what the disk was made from, as it was called then.
	Source *Source `json:"source,omitempty"`
	// Fill is copying into the disk's top that is not done yet.
	Fill *fill `json:"fill,omitempty"`
	// Request made the disk; the same request again finds it made.
	Request string `json:"request"`
}

// Source names what a disk or an image was made from. What stands on whose layers the references tell, not this.
type Source struct {
	Kind string    `json:"kind"`
	ID   uuid.UUID `json:"id"`
	Name string    `json:"name"`
}

// fill has a disk's top get what it lacks from the layers below it, until it stands on the layer Until: the zero UUID for nothing at all.
type fill struct {
	Until uuid.UUID `json:"until"`
	Why   string    `json:"why"`
	// Open names the openings of a stack that the fill works through itself, while the disk is not attached.
	Open []pool.Identity `json:"open,omitempty"`
}

// layerRecord is a layer in the catalog, at layer/ID: where it stands in the tree, and what its header must say.
type layerRecord struct {
	Version    int       `json:"v"`
	ID         uuid.UUID `json:"id"`
	Parent     uuid.UUID `json:"parent"` // the zero UUID at the bottom
	Size       int64     `json:"size"`
	SectorSize int       `json:"sector_size"`
	Encrypted  bool      `json:"encrypted"`
	Created    time.Time `json:"created"`
	// Frozen layers are not written to any more, and may be shared.
	Frozen bool `json:"frozen,omitempty"`
	// Sealed tells of a frozen layer that all of it is durable, and nothing is written to it any more.
	Sealed bool `json:"sealed,omitempty"`
	// Merged names the layer that stands in the place of this one.
	Merged uuid.UUID `json:"merged,omitzero"`
}

func (l layerRecord) header() layer.Header {
	return layer.Header{ID: l.ID, Encrypted: l.Encrypted, SectorSize: l.SectorSize}
}

// attachRecord is an attachment in the catalog, at attachment/DISK. It outlives the daemon: one that is found at attach
// belongs to a run that ended without detaching, or whose last flush failed.
type attachRecord struct {
	Version    int             `json:"v"`
	Disk       uuid.UUID       `json:"disk"`
	Host       string          `json:"host"`
	Instance   string          `json:"instance"`
	Epoch      uint64          `json:"epoch"`
	Identities []pool.Identity `json:"identities"`
	By         string          `json:"by"`
	ReadOnly   bool            `json:"read_only"`
	Since      time.Time       `json:"since"`
	// Unclean tells that the attachment before this one may have lost writes: of a read-only one, which mends nothing, for as long as it is there, of
	// any other until whoever attached it was told.
	Unclean bool `json:"unclean,omitempty"`
	// Shares are who attached it. A record from before there were any names one, as By.
	Shares []Share `json:"shares,omitempty"`
	// Lost is the sync that failed: what was written after the last good flush may be gone.
	Lost string `json:"lost,omitempty"`
	// Recovered tells of an attachment that ended without a detach that nothing was lost.
	Recovered bool `json:"recovered,omitempty"`
	// Run is who goes on with this attachment from that of the epoch From: until it hears of this one nobody writes.
	Run  string `json:"run,omitempty"`
	From uint64 `json:"from,omitempty"`
}

const diskPrefix = "disk/"

func diskKey(id uuid.UUID) string       { return diskPrefix + id.String() }
func nameKey(project, n string) string  { return "disk-name/" + project + "/" + n }
func layerKey(id uuid.UUID) string      { return "layer/" + id.String() }
func attachmentKey(id uuid.UUID) string { return "attachment/" + id.String() }

// parse reads a record strictly: an unknown version or field is refused.
func parse(key string, b []byte, v any, version *int) error {
	err := catalog.DecodeStrict(b, v)
	if err == nil && *version != recordVersion {
		err = fmt.Errorf("version %d; this build reads version %d", *version, recordVersion)
	}
	if err != nil {
		return fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, key, err)
	}
	return nil
}

func parseDisk(key string, b []byte) (d diskRecord, err error) {
	d, ok := quickDisk(b)
	if !ok {
		d = diskRecord{}
		err = parse(key, b, &d, &d.Version)
	}
	if err == nil && diskKey(d.ID) != key {
		err = fmt.Errorf("%w: record %q is disk %s", catalog.ErrDamaged, key, d.ID)
	}
	return d, err
}

func parseLayer(key string, b []byte) (l layerRecord, err error) {
	if err = parse(key, b, &l, &l.Version); err == nil && layerKey(l.ID) != key {
		err = fmt.Errorf("%w: record %q is layer %s", catalog.ErrDamaged, key, l.ID)
	}
	return l, err
}

func parseAttachment(key string, b []byte) (a attachRecord, err error) {
	if err = parse(key, b, &a, &a.Version); err == nil && attachmentKey(a.Disk) != key {
		err = fmt.Errorf("%w: record %q is of disk %s", catalog.ErrDamaged, key, a.Disk)
	}
	return a, err
}

// get reads one record; an absent one is catalog.ErrNotFound.
func get[T any](r catalog.Reader, key string, parse func(string, []byte) (T, error)) (T, error) {
	b, err := r.Get(key)
	if err != nil {
		var none T
		return none, err
	}
	return parse(key, b)
}

func put(t catalog.Txn, key string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("volume: record %q: %w", key, err)
	}
	return t.Put(key, b)
}

// eachDisk calls fn with every disk whose record can be read.
func (s *Service) eachDisk(ctx context.Context, fn func(diskRecord) error) error {
	return s.walkDisks(ctx, func(d diskRecord, err error) error {
		if err != nil {
			return nil
		}
		return fn(d)
	})
}

// walkDisks calls fn with every disk. One whose record can't be read has an id and the error alone.
func (s *Service) walkDisks(ctx context.Context, fn func(d diskRecord, err error) error) error {
	return s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, diskPrefix, func(p catalog.Pair, err error) error {
			var d diskRecord
			if err == nil {
				d, err = parseDisk(p.Key, p.Value)
			}
			if err != nil {
				d.ID, _ = uuid.Parse(p.Key[len(diskPrefix):])
			}
			return fn(d, err)
		})
	})
}

func (s *Service) update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	return catalog.Commit(ctx, s.Catalog, request, fn)
}

func isDamage(err error) bool {
	for _, is := range []error{catalog.ErrDamaged, layer.ErrDamaged, layer.ErrVersion, pool.ErrDamaged, pool.ErrNotExist} {
		if errors.Is(err, is) {
			return true
		}
	}
	return false
}

func isFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
