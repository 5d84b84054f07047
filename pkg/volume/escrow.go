package volume

import (
	"context"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// EscrowKey is the DEK of one layer, on its way out of the key store. Whoever gets it destroys it.
type EscrowKey struct {
	Layer string
	Key   *secret.Key
}

// Escrow unwraps the DEKs of a disk for somebody outside. released is called before they are given out.
func (s *Service) Escrow(ctx context.Context, project, ref string, released func(keystore.KeyVersionRef) error) (sector int, keys []EscrowKey, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return 0, nil, err
	}
	if !d.Encrypted {
		return 0, nil, refusal.New(refusal.Failed, "read its segment files as they are", "disk %s is plain and has no key", d.Name)
	}
	if err := s.mayRest(d, toEscrow); err != nil {
		return 0, nil, err
	}
	s.tree.RLock()
	defer s.tree.RUnlock()
	layers, err := s.stack(ctx, d)
	if err != nil {
		return 0, nil, explain(d.Name, err)
	}
	defer func() {
		if err != nil {
			DestroyAll(keys)
		}
	}()
	for _, l := range layers {
		dek, ref, err := s.Keys.UnwrapDEK(ctx, d.Project, holder(d), l.ID.String(), l.SectorSize)
		if err != nil {
			return 0, keys, err
		}
		keys = append(keys, EscrowKey{l.ID.String(), dek})
		if err := released(ref); err != nil {
			return 0, keys, err
		}
	}
	return d.SectorSize, keys, nil
}

// DestroyAll wipes escrowed keys.
func DestroyAll(keys []EscrowKey) {
	for _, k := range keys {
		k.Key.Destroy()
	}
}
