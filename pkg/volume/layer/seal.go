package layer

import "errors"

// Seal makes all that was written durable, gives back the space that was given up, and refuses every write from then on. Callers
// see to it that nobody writes any more. A layer that is sealed, or was opened for reading, stays as it is. Who can't keep
// other writers away any more does not know what the layer holds: that is a failure for good, as of a sync.
func (l *Layer) Seal() error {
	l.trims.stop() // a flush of its own would meet a volume that is frozen
	if err := l.Flush(); err != nil {
		return err
	}
	l.punching.Wait()
	if err := errors.Join(l.data.Freeze(), l.mapVol.Freeze()); err != nil {
		return l.fail(err)
	}
	l.blocks.frozen.Store(true)
	l.endJournal() // it is empty, and stays to say so until the catalog says that this layer is sealed
	return nil
}
