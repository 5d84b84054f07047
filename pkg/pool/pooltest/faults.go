package pooltest

import (
	"context"
	"sync"

	"nbdcrypt/pkg/pool"
)

// Op names an operation of a volume, for Faults.
type Op string

// The operations that Faults can hook.
const (
	OpRead    Op = "read"
	OpNowait  Op = "read-nowait"
	OpFetch   Op = "prefetch"
	OpWrite   Op = "write"
	OpSync    Op = "write-sync"
	OpFlush   Op = "flush"
	OpDiscard Op = "discard"
	OpReserve Op = "reserve"
	OpResize  Op = "resize"
	OpSettle  Op = "settle"
	OpDrop    Op = "settle-and-drop"
	OpFreeze  Op = "freeze"
	OpPool    Op = "settle-pool" // of no volume
)

// Call is one operation as the hook sees it, before it happens.
type Call struct {
	Volume string
	Op     Op
	Off, N int64
}

// Faults is a pool whose operations first ask a hook: an error is answered in place of the operation, a hook that
// waits delays it, one that notes what it sees is a trace.
type Faults struct {
	pool.Pool

	mu   sync.Mutex
	hook func(Call) error
}

// NewFaults wraps a pool.
func NewFaults(p pool.Pool) *Faults { return &Faults{Pool: p} }

// Hook sets what is asked; nil asks nothing.
func (f *Faults) Hook(hook func(Call) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

func (f *Faults) ask(c Call) error {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(c)
}

// Settle asks too.
func (f *Faults) Settle() error {
	if err := f.ask(Call{Op: OpPool}); err != nil {
		return err
	}
	return f.Pool.Settle()
}

// Open wraps the volume too.
func (f *Faults) Open(ctx context.Context, name string, readOnly bool) (pool.Volume, error) {
	v, err := f.Pool.Open(ctx, name, readOnly)
	if err != nil {
		return nil, err
	}
	return &faulty{Volume: v, faults: f, name: name}, nil
}

type faulty struct {
	pool.Volume
	faults *Faults
	name   string
}

func (v *faulty) ask(op Op, off, n int64) error {
	return v.faults.ask(Call{v.name, op, off, n})
}

func (v *faulty) ReadAt(p []byte, off int64) (int, error) {
	if err := v.ask(OpRead, off, int64(len(p))); err != nil {
		return 0, err
	}
	return v.Volume.ReadAt(p, off)
}

func (v *faulty) ReadAtNowait(p []byte, off int64) (int, error) {
	if err := v.ask(OpNowait, off, int64(len(p))); err != nil {
		return 0, err
	}
	return v.Volume.ReadAtNowait(p, off)
}

func (v *faulty) Prefetch(off, n int64) error {
	if err := v.ask(OpFetch, off, n); err != nil {
		return err
	}
	return v.Volume.Prefetch(off, n)
}

func (v *faulty) WriteAt(p []byte, off int64) (int, error) {
	if err := v.ask(OpWrite, off, int64(len(p))); err != nil {
		return 0, err
	}
	return v.Volume.WriteAt(p, off)
}

func (v *faulty) WriteAtSync(p []byte, off int64) (int, error) {
	if err := v.ask(OpSync, off, int64(len(p))); err != nil {
		return 0, err
	}
	return v.Volume.WriteAtSync(p, off)
}

func (v *faulty) Flush() error {
	if err := v.ask(OpFlush, 0, 0); err != nil {
		return err
	}
	return v.Volume.Flush()
}

func (v *faulty) Settle(drop bool) error {
	op := OpSettle
	if drop {
		op = OpDrop
	}
	if err := v.ask(op, 0, 0); err != nil {
		return err
	}
	return v.Volume.Settle(drop)
}

func (v *faulty) Discard(off, n int64) error {
	if err := v.ask(OpDiscard, off, n); err != nil {
		return err
	}
	return v.Volume.Discard(off, n)
}

func (v *faulty) Reserve(off, n int64) error {
	if err := v.ask(OpReserve, off, n); err != nil {
		return err
	}
	return v.Volume.Reserve(off, n)
}

func (v *faulty) Resize(size int64) error {
	if err := v.ask(OpResize, 0, size); err != nil {
		return err
	}
	return v.Volume.Resize(size)
}

func (v *faulty) Freeze() error {
	if err := v.ask(OpFreeze, 0, 0); err != nil {
		return err
	}
	return v.Volume.Freeze()
}
