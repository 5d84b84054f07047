package volume

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// Why a disk's top is filled. What was asked for, fillFull and fillRekey, is kept until it is done; fillMerge gives back space, and may be
// given up.
const (
	fillFull  = "full"  // the disk is to stand alone: it was made as a full copy
	fillRekey = "rekey" // the disk gets another data key
	fillMerge = "merge" // what the disk alone needs of the layers below its top is copied up, and they go
)

// keeps tells whether a fill was asked for, so that it is not given up for something else.
func (f fill) keeps() bool { return f.Why != fillMerge }

// errGiveWay ends a stretch of work because somebody else has something to do with the disk, or its layers have changed.
var errGiveWay = errors.New("volume: the disk is wanted by somebody else")

// RunFill does what is left of a disk's fill: through the attachment where the disk is attached, else through a stack of its own. It gives
// way to whatever else is done to the disk, and goes on after that, but for a detach, which ends it. Where it ended early, also by a
// crash, it may be run again: what the top has by then is not copied again.
func (s *Service) RunFill(ctx context.Context, project, ref string, w Work) error {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil || d.Fill == nil {
		return err
	}
	unlock, err := s.lockTree(ctx, d.Top)
	if err != nil {
		return explain(d.Name, err)
	}
	defer unlock()
	return explain(d.Name, s.runFill(ctx, d, w))
}

// runFill is RunFill for who has the lock of the disk's tree.
func (s *Service) runFill(ctx context.Context, d diskRecord, w Work) error {
	w.begun()
	f := &filler{Service: s, id: d.ID, project: d.Project, name: d.Name, w: w}
	for {
		if err := s.takeTurn(ctx, d.ID); err != nil {
			return f.stopped(err)
		}
		err := f.stretch(ctx)
		s.endTurn(d.ID)
		if !errors.Is(err, errGiveWay) {
			return f.stopped(err)
		}
	}
}

// filler is a fill that runs.
type filler struct {
	*Service
	id            uuid.UUID
	project, name string
	w             Work
	through       *Attachment // whose stack it used last
	done, total   int64
	lacked        *lack // what the last walk of the maps found, if it found something
}

// stretch works until the fill is done, or the disk is wanted by somebody else.
func (f *filler) stretch(ctx context.Context) error {
	d, err := f.lookUp(ctx, f.project, f.id.String())
	if refusal.CodeOf(err) == refusal.NotFound {
		return nil // and what was to be filled with it
	}
	if err != nil || d.Fill == nil || d.Status != Available {
		return err
	}
	a := f.attachment(d.ID)
	switch {
	case a == nil && f.through != nil:
		return refusal.New(refusal.Busy, "it goes on with the next attach", "disk %s was detached", d.Name)
	case a == nil:
		return f.alone(ctx, d)
	case a.ReadOnly:
		return refusal.New(refusal.Busy, "it goes on with the next attach that is not", "disk %s is attached read-only", d.Name)
	}
	f.through = a
	return f.copyInto(ctx, d, a.Stack)
}

// stopped says of a fill that ended early how it goes on.
func (f *filler) stopped(err error) error {
	var r *refusal.Error
	switch {
	case err == nil:
		return nil
	case errors.Is(err, context.Canceled):
		return refusal.New(refusal.Failed, "it goes on from there with the same command, the disk's next attach, or the daemon's next start",
			"interrupted: %d of %d bytes of disk %s are done", f.done, f.total, f.name)
	case errors.As(err, &r), isDamage(err):
		return err
	case isFull(err):
		return refusal.New(refusal.Failed, "make room in the pool's file system; it goes on from there with the same command, the disk's next attach, or the daemon's next start",
			"no space left for copying into disk %s: %w", f.name, err)
	}
	return err
}
