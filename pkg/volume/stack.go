package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
	"nbdcrypt/xts"
)

// Stack is layers that are open together, as the device that they are: of an attached disk, or of a disk or point that this
// program reads or copies itself.
type Stack struct {
	Device *cryptdev.Device
	// Key names the CMK version that was used; nil for a plain disk.
	Key *keystore.KeyVersionRef

	s         *Service
	holder    keystore.Holder
	project   string
	label     string
	onFailure func(error)
	opening   uuid.UUID // names the journals of what is written; zero where none are kept

	mu     sync.Mutex // the stack changes while it is open
	layers []openLayer
}

// openLayer is one layer of a Stack. The cipher of a plain one is empty.
type openLayer struct {
	*layer.Layer
	size   int64
	cipher heldCipher
}

func (l openLayer) part() cryptdev.Layer {
	return cryptdev.Layer{Layer: l.Layer, Cipher: l.cipher.cipher, Size: l.size}
}

// LayerKey is the key of a layer, as package xts has expanded it.
type LayerKey struct {
	Layer     string
	Schedules []byte
}

// stackOptions say how a stack is opened.
type stackOptions struct {
	ReadOnly bool
	// Frozen tells that nobody writes to the first layer either.
	Frozen bool
	// Unclean tells that the first layer was left by a run that ended without closing it.
	Unclean   bool
	OnFailure func(error)
	// Opening names the journals of what is written; it is zero for who does again what a crash undoes, and needs none.
	Opening uuid.UUID
	// Wiping is told of the keys where opening fails once they are unwrapped. It may be nil.
	Wiping func([]LayerKey)
}

// openStack opens layers, top first, as a device of size bytes, with the DEKs that the holder has for them. The holder's own DEKs are
// unwrapped each time, whoever has the layers open already: its key may forbid it.
func (s *Service) openStack(ctx context.Context, holder keystore.Holder, project, label string, layers []layerRecord, size int64, o stackOptions) (*Stack, error) {
	st := &Stack{s: s, holder: holder, project: project, label: label, onFailure: o.OnFailure, opening: o.Opening}
	if err := st.open(ctx, layers, size, o); err != nil {
		return nil, errors.Join(err, st.close(o.Wiping))
	}
	parts := make([]cryptdev.Layer, len(st.layers))
	for i, l := range st.layers {
		parts[i] = l.part()
	}
	st.Device = cryptdev.New(parts, size, o.ReadOnly || o.Frozen)
	return st, nil
}

// open unwraps all keys before it opens a file; what it has opened when it fails is in st.
func (st *Stack) open(ctx context.Context, layers []layerRecord, size int64, o stackOptions) error {
	for i, l := range layers {
		if i == 0 {
			l.Size = size
		}
		cipher, err := st.unwrap(ctx, l)
		if err != nil {
			return err
		}
		st.layers = append(st.layers, openLayer{size: l.Size, cipher: cipher})
	}
	for i, l := range layers {
		frozen := i > 0 || o.Frozen
		if frozen && !l.Sealed {
			if err := st.s.settle(ctx, l); err != nil {
				return err
			}
		}
		open, err := layer.Open(ctx, st.s.Pool, l.header(), st.layers[i].size, st.journaled(
			layer.Options{ReadOnly: o.ReadOnly || frozen, Unclean: o.Unclean, OnFailure: o.OnFailure}))
		if err != nil {
			return err
		}
		st.layers[i].Layer = open
	}
	return nil
}

// journaled has a layer that is written keep a journal, where this stack is one that has some.
func (st *Stack) journaled(o layer.Options) layer.Options {
	if st.opening != uuid.Nil {
		o.Journals, o.Opening, o.Unjournaled = st.s.journals, st.opening, st.s.noJournal
	}
	return o
}

// unwrap opens the holder's DEK of a layer and expands it where it will be used; the DEK itself does not stay.
func (st *Stack) unwrap(ctx context.Context, l layerRecord) (heldCipher, error) {
	if !l.Encrypted {
		return heldCipher{}, nil
	}
	dek, key, err := st.s.Keys.UnwrapDEK(ctx, st.project, st.holder, l.ID.String(), l.SectorSize)
	if err != nil {
		return heldCipher{}, fmt.Errorf("%s can't be opened: %w", st.label, err)
	}
	defer dek.Destroy()
	if st.Key == nil {
		st.Key = &key
	}
	own, err := expand(l.ID, st.label, dek)
	if err != nil {
		return heldCipher{}, err
	}
	held, ok := st.s.ciphers.hold(own)
	if !ok {
		return heldCipher{}, fmt.Errorf("%w: the key of layer %s that %s has is not the one that others have", catalog.ErrDamaged, l.ID, st.label)
	}
	return held, nil
}

func expand(id uuid.UUID, label string, dek *secret.Key) (heldCipher, error) {
	memory, err := secret.New(xts.Size, secret.Purpose{Kind: "dek", ID: id.String(), For: label})
	if err != nil {
		return heldCipher{}, keyMemory(err)
	}
	var cipher *xts.Cipher
	secret.Do(func() { cipher, err = xts.New(memory.Bytes(), dek.Bytes()) })
	if err != nil {
		memory.Destroy()
		return heldCipher{}, fmt.Errorf("volume: the key of layer %s: %w", id, err)
	}
	return heldCipher{id, cipher, memory}, nil
}

// keyMemory makes a refusal of a full arena.
func keyMemory(err error) error {
	if errors.Is(err, secret.ErrFull) {
		return refusal.New(refusal.Failed, "detach a disk, or raise the limit of locked memory (LimitMEMLOCK, ulimit -l)",
			"no memory left for keys: %w", err)
	}
	return err
}

// opened are the open layers as they stand now, top first.
func (st *Stack) opened() []openLayer {
	st.mu.Lock()
	defer st.mu.Unlock()
	return slices.Clone(st.layers)
}

// find is the open layer of that id.
func (st *Stack) find(id uuid.UUID) (*layer.Layer, bool) {
	for _, l := range st.opened() {
		if l.ID == id {
			return l.Layer, true
		}
	}
	return nil, false
}

// openTop opens a layer for writing that is to come over the others.
func (st *Stack) openTop(ctx context.Context, l layerRecord) (openLayer, error) {
	cipher, err := st.unwrap(ctx, l)
	if err != nil {
		return openLayer{}, err
	}
	top := openLayer{size: l.Size, cipher: cipher}
	if top.Layer, err = layer.Open(ctx, st.s.Pool, l.header(), l.Size, st.journaled(layer.Options{OnFailure: st.onFailure})); err != nil {
		return openLayer{}, errors.Join(err, st.end([]openLayer{top}, nil))
	}
	return top, nil
}

// put has what openTop opened be the top. It can't fail: the catalog says so already.
func (st *Stack) put(top openLayer) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.Device.Push(top.part())
	st.layers[0].size = st.Device.Layers()[1].Size
	st.layers = append([]openLayer{top}, st.layers...)
}

// close closes the layers, and wipes the keys that nobody else uses. wiping, which may be nil, is told of those right before.
func (st *Stack) close(wiping func([]LayerKey)) error {
	st.mu.Lock()
	layers := st.layers
	st.layers = nil
	st.mu.Unlock()
	return st.end(layers, wiping)
}

// end closes what is part of the stack no more.
func (st *Stack) end(layers []openLayer, wiping func([]LayerKey)) error {
	var errs []error
	var keys []heldCipher
	for _, l := range layers {
		if l.Layer != nil {
			errs = append(errs, l.Close())
		}
		if l.cipher.cipher != nil {
			keys = append(keys, l.cipher)
		}
	}
	keys = st.s.ciphers.letGo(keys)
	if wiping != nil && len(keys) > 0 {
		lent := make([]LayerKey, len(keys))
		for i, k := range keys {
			lent[i] = LayerKey{k.layer.String(), k.memory.Bytes()}
		}
		wiping(lent)
	}
	for _, k := range keys {
		k.wipe()
	}
	return errors.Join(errs...)
}
