package volume

import (
	"context"
	"errors"

	"nbdcrypt/pkg/refusal"
)

// CreateCopy makes a disk that has the data of an image and stands on nothing (rule A25): encrypted or plain, under any key, as spec says. It is
// long work; failed, interrupted or cut off it leaves nothing. What data there is passes through memory alone on its way from one key to the other.
// Whether an image's data may leave its key is not asked here.
func (s *Service) CreateCopy(ctx context.Context, request string, spec Spec, w Work) (Disk, error) {
	if spec.From == nil || !spec.From.Convert || spec.From.Kind != ImageKind {
		return Disk{}, errors.New("volume: CreateCopy copies the data of an image")
	}
	p, free, err := s.lookUpPoint(ctx, ImageKind, spec.Project, spec.From.Ref)
	if err != nil {
		return Disk{}, err
	}
	defer free()
	if err := p.convertsTo(&spec); err != nil {
		return Disk{}, err
	}
	// The disk's key is used first: a bad one fails before anything is read.
	m, err := s.draw(ctx, request, spec, Downloading, &Source{Kind: ImageKind, ID: p.ID, Name: p.Name})
	if err != nil {
		return Disk{}, err
	}
	made, err := s.madeDisk(ctx, m.disk)
	if err == nil && made == nil {
		made, err = s.copyInto(ctx, request, m, p, w)
	}
	return s.describe(context.WithoutCancel(ctx), orNone(made), err)
}

// copyInto makes the disk of what the image holds, which stays open meanwhile.
func (s *Service) copyInto(ctx context.Context, request string, m newDisk, p pointRecord, w Work) (*diskRecord, error) {
	if err := s.roomToCopy(ctx, p); err != nil {
		return nil, err
	}
	image, err := s.openPoint(ctx, p)
	if err != nil {
		return nil, explainPoint(p.Kind, p.Name, err)
	}
	defer image.close(nil)
	if err := w.released(image); err != nil {
		return nil, err
	}
	m.fill = func(to *Stack) error {
		w.begun()
		return copyData(ctx, image, p.Size, &ImageWriter{ctx: ctx, s: s, stack: to, size: m.disk.Size}, w.progress)
	}
	made, err := s.reserveAndBuild(ctx, request, m, toDownload)
	return &made, err
}

// convertsTo fills in what a disk that is copied has of its image, and refuses what can't hold that.
func (p pointRecord) convertsTo(spec *Spec) error {
	if spec.SectorSize == 0 {
		spec.SectorSize = p.SectorSize
	}
	if err := checkSector(spec.SectorSize); err != nil {
		return err
	}
	if spec.Size == 0 {
		spec.Size = wholeSectors(p.Size, spec.SectorSize)
	}
	if spec.Size < p.Size {
		return refusal.New(refusal.Usage, "give a size of at least that, or none", "%s %s has %d bytes, and a disk made from it can't have %d", p.Kind, p.Name, p.Size, spec.Size)
	}
	return checkSpec(*spec)
}
