package volume

import (
	"context"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
)

// Work is what long work tells of itself.
type Work struct {
	// Progress is told how far it is, in bytes of the disk. It may be nil.
	Progress func(done, total int64)
	// Released is called before a key is used that was unwrapped for it; an error ends it. This is where the audit record is synced. It
	// may be nil.
	Released func(holder keystore.Holder, key *keystore.KeyVersionRef) error
	// Begun is told once there is anything to do. It may be nil.
	Begun func()
}

func (w Work) progress(done, total int64) {
	if w.Progress != nil {
		w.Progress(done, total)
	}
}

func (w Work) begun() {
	if w.Begun != nil {
		w.Begun()
	}
}

func (w Work) released(st *Stack) error {
	if w.Released == nil || st.Key == nil {
		return nil
	}
	return w.Released(st.holder, st.Key)
}

// treeLocks let one piece of long work at a time change the layers of a tree, which its bottom layer names.
type treeLocks struct {
	mu   sync.Mutex
	held map[uuid.UUID]chan struct{} // closed when it is free
}

func newTreeLocks() *treeLocks { return &treeLocks{held: map[uuid.UUID]chan struct{}{}} }

// try takes the lock, or answers what is closed when it is free again.
func (l *treeLocks) try(root uuid.UUID) (busy <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if free := l.held[root]; free != nil {
		return free
	}
	l.held[root] = make(chan struct{})
	return nil
}

func (l *treeLocks) unlock(root uuid.UUID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.held[root])
	delete(l.held, root)
}

// lockTree waits for its turn in the tree that a layer is part of. What else is done there may give the tree another bottom meanwhile:
// then it waits for that. A layer that is not there is catalog.ErrNotFound.
func (s *Service) lockTree(ctx context.Context, id uuid.UUID) (unlock func(), err error) {
	for {
		root, err := s.rootOf(ctx, id)
		if err != nil {
			return nil, err
		}
		if busy := s.trees.try(root); busy != nil {
			select {
			case <-busy:
				continue
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		if now, err := s.rootOf(ctx, id); err == nil && now == root {
			return func() { s.trees.unlock(root) }, nil
		}
		s.trees.unlock(root)
	}
}

// rootOf is the bottom of the stack that begins with a layer.
func (s *Service) rootOf(ctx context.Context, id uuid.UUID) (root uuid.UUID, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		if _, err := r.Get(layerKey(id)); err != nil {
			return err
		}
		layers, err := s.layersFrom(r, id)
		if err == nil {
			root = layers[len(layers)-1].ID
		}
		return err
	})
	return root, err
}
