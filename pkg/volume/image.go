package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// ImageOf says of which disk an image is to be made. What is asked for besides has to be what the disk has (rule A32).
type ImageOf struct {
	ID                  uuid.UUID // as planned; the zero UUID for a new one
	Project, Disk, Name string
	Encrypted           *bool  // nil for what the disk is
	Key                 string // its id; empty for the disk's
}

// CreateImage keeps what a disk holds at this moment, attached or not, in constant time. The image is under the key that the disk has now.
func (s *Service) CreateImage(ctx context.Context, request string, of ImageOf) (Point, error) {
	if err := checkNameOf("an image", of.Name); err != nil {
		return Point{}, err
	}
	d, err := s.claimNow(ctx, of.Project, of.Disk, toUpload)
	if err != nil {
		return Point{}, err
	}
	defer s.release(d)
	if err := of.allowed(d); err != nil {
		return Point{}, err
	}
	p, err := s.madeBefore(ctx, ImageKind, of.Project, of.Name, request)
	if err == nil && p.ID == uuid.Nil {
		p = s.newPoint(ImageKind, of.Name, request, d)
		if of.ID != uuid.Nil {
			p.ID = of.ID
		}
		err = s.making(p, func() error { return explain(d.Name, s.freeze(ctx, request, d, &p, nil)) })
	}
	if err != nil {
		return Point{}, err
	}
	return s.Point(ctx, ImageKind, of.Project, p.ID.String())
}

func (of ImageOf) allowed(d diskRecord) error {
	const next = "leave it out, and make another image of the image then: `nbdcrypt image copy`"
	is := map[bool]string{true: "encrypted", false: "plain"}
	switch {
	case of.Encrypted != nil && *of.Encrypted != d.Encrypted:
		return refusal.New(refusal.Usage, next, "disk %s is %s, and so are images of it", d.Name, is[d.Encrypted])
	case of.Key != "" && of.Key != d.Key:
		return refusal.New(refusal.Usage, next, "disk %s is not under that key, and images of it are under the disk's", d.Name)
	}
	return nil
}

// making has a point for its maker alone: nobody uses or deletes what is half there.
func (s *Service) making(p pointRecord, make func() error) error {
	free, err := s.takePoint(p)
	if err != nil {
		return err
	}
	defer free()
	return make()
}

// DeleteImage ends an image. It needs no key; disks that stand on it keep what they need of it. The layer that it had is told, for
// whoever wants to merge it.
func (s *Service) DeleteImage(ctx context.Context, request, project, ref string) (layer uuid.UUID, err error) {
	var p pointRecord
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		p, err = findPoint(r, ImageKind, project, ref)
		return err
	})
	if err != nil {
		return uuid.Nil, explainPoint(ImageKind, ref, err)
	}
	err = s.making(p, func() error {
		layer, err = s.dropPointUnless(context.WithoutCancel(ctx), request, p, s.Held)
		return err
	})
	return layer, explainPoint(ImageKind, p.Name, err)
}

// explainImage is explain for an image that is being made.
func explainImage(name string, err error) error {
	var r *refusal.Error
	switch {
	case err == nil, errors.As(err, &r):
		return err
	case isFull(err):
		return refusal.New(refusal.Failed, "make room in the pool's file system, then try again", "no space left for image %s: %w", name, err)
	case isDamage(err):
		return refusal.New(refusal.Damaged, "run `nbdcrypt check`, which says what is damaged", "image %s can't be made: %w", name, err)
	}
	return fmt.Errorf("image %s: %w", name, err)
}
