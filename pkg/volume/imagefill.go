package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/volume/layer"
)

// ImageSpec is what an image should be whose data comes from elsewhere.
type ImageSpec struct {
	Project, Name string
	Size          int64 // rounded up to whole sectors; 0 where only the end of the data tells
	SectorSize    int   // 512 or 4096
	Encrypted     bool
	Key           string // id or alias; empty for the project's default key

	from *Source // what the data was
}

// MaxSize is the size of the largest disk or image.
const MaxSize = layer.MaxSize

// FileKind is the source of an image whose data came from outside.
const FileKind = "file"

// FillImage makes an image of what fill writes, in one layer under a key of its own, or leaves nothing behind. fill is called once the
// image's name is taken, and tells how many bytes the data had.
func (s *Service) FillImage(ctx context.Context, request string, spec ImageSpec, fill func(*ImageWriter) (size int64, err error)) (Point, error) {
	if err := checkImage(spec); err != nil {
		return Point{}, err
	}
	if spec.from == nil {
		spec.from = &Source{Kind: FileKind}
	}
	now := s.Clock.Now()
	l := layerRecord{Version: recordVersion, ID: uuid.New(), Size: max(wholeSectors(spec.Size, spec.SectorSize), int64(spec.SectorSize)),
		SectorSize: spec.SectorSize, Encrypted: spec.Encrypted, Created: now}
	p := pointRecord{Version: recordVersion, Kind: ImageKind, ID: uuid.New(), Name: spec.Name, Project: spec.Project, Layer: l.ID, Size: l.Size,
		SectorSize: spec.SectorSize, Encrypted: spec.Encrypted, Status: Creating, Created: now, From: spec.from, Request: request}
	var deks []keystore.Record
	if spec.Encrypted {
		// The key is used first: a bad one fails before anything is read.
		dek, err := s.Keys.GenerateDEK(ctx, spec.Project, spec.Key, p.holder(), l.ID.String(), spec.SectorSize)
		if err != nil {
			return Point{}, err
		}
		p.Key, deks = dek.CMK.String(), append(deks, dek)
	}
	if err := s.making(p, func() error { return s.makeImage(ctx, request, p, l, deks, spec.Size == 0, fill) }); err != nil {
		return Point{}, explainImage(p.Name, err)
	}
	return s.Point(ctx, ImageKind, p.Project, p.ID.String())
}

func checkImage(spec ImageSpec) error {
	if err := checkNameOf("an image", spec.Name); err != nil {
		return err
	}
	if err := checkSector(spec.SectorSize); err != nil || spec.Size == 0 {
		return err
	}
	return checkSize(wholeSectors(spec.Size, spec.SectorSize), spec.SectorSize)
}

// wholeSectors rounds up: what has a part of a sector at its end has zeros behind that.
func wholeSectors(size int64, sector int) int64 {
	return (size + int64(sector) - 1) / int64(sector) * int64(sector)
}

func (s *Service) makeImage(ctx context.Context, request string, p pointRecord, l layerRecord, deks []keystore.Record, grows bool, fill func(*ImageWriter) (int64, error)) error {
	err := s.update(ctx, request+"/intent", func(t catalog.Txn) error {
		return errors.Join(reservePoint(t, p), put(t, layerKey(l.ID), l), addRef(t, l.ID, p.Kind, p.ID))
	})
	if err != nil {
		return err
	}
	err = s.fillLayer(ctx, &p, l, deks, grows, fill)
	if err == nil {
		err = s.update(ctx, request, func(t catalog.Txn) error {
			now, err := get(t, p.key(), parsePoint) // it may be under another key by now
			if err != nil {
				return err
			}
			now.Size, now.Status = p.Size, Available
			l.Size, l.Frozen, l.Sealed = p.Size, true, true
			return errors.Join(put(t, p.key(), now), put(t, layerKey(l.ID), l))
		})
	}
	if err != nil && !errors.Is(err, catalog.ErrUnknownOutcome) { // else the next start finds out
		// The caller may have gone; what was begun is taken back all the same.
		_, dropped := s.dropPoint(context.WithoutCancel(ctx), "drop-"+uuid.NewString(), p)
		err = errors.Join(err, dropped)
	}
	return err
}

// fillLayer writes the image's layer, and seals it. The size that the data turned out to have is in p then.
func (s *Service) fillLayer(ctx context.Context, p *pointRecord, l layerRecord, deks []keystore.Record, grows bool, fill func(*ImageWriter) (int64, error)) (err error) {
	if err := layer.Create(ctx, s.Pool, l.header(), l.Size); err != nil {
		return err
	}
	if err := s.putDEKs(ctx, deks); err != nil {
		return err
	}
	st, err := s.openStack(ctx, p.holder(), p.Project, p.label(), []layerRecord{l}, l.Size, stackOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close(nil)) }()
	w := &ImageWriter{ctx: ctx, s: s, stack: st, size: l.Size, grows: grows}
	size, err := fill(w)
	if err != nil {
		return err
	}
	p.Size = wholeSectors(size, p.SectorSize)
	if err := checkSize(p.Size, p.SectorSize); err != nil {
		return err
	}
	if p.Size != w.size && !grows {
		return fmt.Errorf("volume: image %s was said to have %d bytes, and has %d", p.Name, w.size, p.Size)
	}
	if err := w.grow(p.Size); err != nil { // what comes last may be a hole
		return err
	}
	return st.opened()[0].Seal()
}

const (
	// growStep is how much more room an image gets at a time whose size nobody knows yet.
	growStep = 256 << 20
	// roomStep is after how much data the pool is asked whether there is room for as much again.
	roomStep = 64 << 20
)

// ImageWriter takes the data of an image that is being made.
type ImageWriter struct {
	ctx   context.Context
	s     *Service
	stack *Stack
	size  int64
	grows bool
	left  int64 // of what there was room for when it was asked
}

// WriteAt writes what belongs at off. What is never written is zeros.
func (w *ImageWriter) WriteAt(p []byte, off int64) (int, error) {
	if err := w.ctx.Err(); err != nil {
		return 0, err
	}
	if w.left -= int64(len(p)); w.left < 0 {
		if err := w.s.room(roomStep); err != nil {
			return 0, err
		}
		w.left = roomStep
	}
	if err := w.grow(off + int64(len(p))); err != nil {
		return 0, err
	}
	return w.stack.Device.WriteAt(p, off)
}

// grow makes room for an image of at least size bytes, where nobody knew that before.
func (w *ImageWriter) grow(size int64) error {
	if size <= w.size || !w.grows {
		return nil
	}
	to := min(layer.MaxSize, (size+growStep-1)/growStep*growStep)
	if err := w.stack.opened()[0].Resize(to); err != nil {
		return err
	}
	w.stack.Device.Grow(to)
	w.size = to
	return nil
}
