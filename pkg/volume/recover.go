package volume

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume/layer"
)

// opening names, in the names of journals, all layers that an attachment has open for writing.
func (a *attachRecord) opening() uuid.UUID {
	return uuid.NewSHA1(a.Disk, fmt.Appendf(nil, "%s %d", a.Instance, a.Epoch))
}

// recover makes durable what an attachment has left in its journals, of which nothing was lost then. It is a step of its own, so that it can be
// cut off and done again: the journals stay until the catalog says that it is done. It answers the record that is still to be told of, nil
// where nothing is. It needs no key.
func (s *Service) recover(ctx context.Context, d diskRecord, left *attachRecord) (*attachRecord, error) {
	if left.Recovered {
		return left.untold(), nil
	}
	if left.ReadOnly || left.Lost != "" || s.journals == nil {
		return left, nil
	}
	layers, err := s.written(ctx, d)
	if err != nil {
		return left, err
	}
	changes, err := s.readJournals(layers, left)
	if err == nil {
		err = s.poolSettled()
	}
	for i := len(layers) - 1; i >= 0 && err == nil; i-- {
		err = s.replay(ctx, layers[i], changes[i])
	}
	if err == nil {
		err = s.keepRecovered(ctx, left, layers)
	}
	if err != nil && mayPass(err) {
		return left, err // another try finds what this one found
	}
	if !errors.Is(err, pool.ErrNotExist) { // the pool may be mounted later
		s.dropJournals(left, layers)
	}
	if err != nil {
		s.Log.Warn("answered writes may be lost", "disk", d.Name, "why", err)
		return left, unlessLost(err)
	}
	s.Log.Info("recovered: nothing that was answered is lost", "disk", d.Name, "changes", len(changes[0]))
	return left.untold(), nil
}

// untold is a recovered attachment that is still to be told of, since the one before it was not.
func (a *attachRecord) untold() *attachRecord {
	if a.Unclean {
		return a
	}
	return nil
}

// written are the layers that an attachment of a disk can have written: its top, and those below that a snapshot had not sealed yet.
func (s *Service) written(ctx context.Context, d diskRecord) (list []layerRecord, err error) {
	layers, err := s.stack(ctx, d)
	for i, l := range layers {
		if i == 0 {
			l.Size = d.Size
		} else if l.Sealed {
			break
		}
		list = append(list, l)
	}
	return list, err
}

// readJournals demands the journals of all of them: what went into the one may not be there without what went into the other.
func (s *Service) readJournals(layers []layerRecord, left *attachRecord) (changes [][]layer.Change, err error) {
	for _, l := range layers {
		list, err := s.journals.Read(s.Pool, l.ID, left.opening(), l.Size)
		if err != nil {
			return nil, err
		}
		changes = append(changes, list)
	}
	return changes, nil
}

// replay has a layer's map be durably what its journal says.
func (s *Service) replay(ctx context.Context, l layerRecord, changes []layer.Change) error {
	open, err := layer.Open(ctx, s.Pool, l.header(), l.Size, layer.Options{Unclean: true, Replay: changes})
	if err != nil {
		return err
	}
	return errors.Join(open.Flush(), open.Close())
}

// keepRecovered has the catalog know that an attachment which ended without a detach lost nothing.
func (s *Service) keepRecovered(ctx context.Context, left *attachRecord, layers []layerRecord) error {
	return s.update(ctx, "recovered-"+uuid.NewString(), func(t catalog.Txn) error {
		now, err := get(t, attachmentKey(left.Disk), parseAttachment)
		if err != nil || now.Epoch != left.Epoch {
			return err
		}
		for _, l := range layers[1:] {
			if err := markSealed(t, l.ID); err != nil {
				return err
			}
		}
		now.Recovered = true
		return put(t, attachmentKey(left.Disk), now)
	})
}

// mayPass tells errors that say nothing of what is in the pool.
func mayPass(err error) bool {
	for _, is := range []error{syscall.EMFILE, syscall.ENFILE, syscall.ENOMEM, pool.ErrInUse, context.Canceled, context.DeadlineExceeded, catalog.ErrUnknownOutcome} {
		if errors.Is(err, is) {
			return true
		}
	}
	return isFull(err)
}

// unlessLost is the error of a recovery that keeps a disk from being used as it is, too: storage that fails. That a journal is no good does not.
func unlessLost(err error) error {
	if isDamage(err) || errors.Is(err, layer.ErrStale) || errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, errPoolForgot) {
		return nil
	}
	return err
}

// dropJournals removes what an attachment has kept of the changes of layers.
func (s *Service) dropJournals(of *attachRecord, layers []layerRecord) {
	for _, l := range layers {
		s.dropJournal(l.ID, of.opening())
	}
}

// forgetJournals removes those of layers that are closed, of which nothing is needed any more.
func (s *Service) forgetJournals(opening uuid.UUID, layers []openLayer) {
	for _, l := range layers {
		s.dropJournal(l.ID, opening)
	}
}

// dropJournal removes one. One that stays is of an opening that nobody asks for again.
func (s *Service) dropJournal(id, opening uuid.UUID) {
	if s.journals == nil || opening == uuid.Nil {
		return
	}
	if err := s.journals.Drop(id, opening); err != nil {
		s.Log.Warn("a journal that is not needed any more can't be removed", "layer", id, "err", err)
	}
}

// errPoolForgot tells of a write that failed and that nobody was told of.
var errPoolForgot = errors.New("volume: the pool's file system has lost writes")

// settlePool asks the pool once in a run for failed writes that no sync of a file tells of any more: one that a killed process waited for, or of a
// file that was not open meanwhile. Who hears of it is the only one: so no journal is believed from then on.
func (s *Service) settlePool() error {
	err := s.Pool.Settle()
	if err == nil {
		return nil
	}
	_ = s.journals.Sweep(func(_, _ uuid.UUID) bool { return false })
	return fmt.Errorf("%w: %w", errPoolForgot, err)
}
