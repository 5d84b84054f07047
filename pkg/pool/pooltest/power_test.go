package pooltest_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
)

func TestPowerIsAPool(t *testing.T) {
	for _, strict := range []bool{false, true} {
		t.Run(fmt.Sprintf("strict=%v", strict), func(t *testing.T) {
			pooltest.Run(t, func(*testing.T) pool.Pool {
				p := pooltest.NewPower()
				if strict {
					p.Strict()
				}
				return p
			})
		})
	}
}

func TestFaultsIsAPool(t *testing.T) {
	pooltest.Run(t, func(*testing.T) pool.Pool { return pooltest.NewFaults(pooltest.NewPower()) })
}

// A pool that loses nothing would let every crash test pass: some unflushed sectors must come back old.
func TestPowerLosesOnlyWhatWasNotFlushed(t *testing.T) {
	p := pooltest.NewPower()
	const name = "l/data"
	if err := p.Create(t.Context(), name, 64<<10); err != nil {
		t.Fatal(err)
	}
	v, err := p.Open(t.Context(), name, false)
	if err != nil {
		t.Fatal(err)
	}
	old, fresh := bytes.Repeat([]byte{1}, 64<<10), bytes.Repeat([]byte{2}, 64<<10)
	for _, step := range []func() error{
		func() error { _, err := v.WriteAt(old, 0); return err },
		v.Flush,
		func() error { _, err := v.WriteAt(fresh, 0); return err },
		func() error { _, err := v.WriteAtSync(fresh[:512], 0); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
	p.CutAfter(0)
	if _, err := v.ReadAt(make([]byte, 1), 0); err == nil {
		t.Fatal("the power is not off")
	}
	p.Restart(rand.New(rand.NewPCG(1, 2)))
	if err := v.Flush(); err == nil {
		t.Error("what was open before the cut lives on")
	}
	if v, err = p.Open(t.Context(), name, false); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 64<<10)
	if _, err := v.ReadAt(got, 0); err != nil {
		t.Fatal(err)
	}
	if got[0] != 2 {
		t.Error("a synchronous write was lost")
	}
	if n := bytes.Count(got, []byte{1}); n == 0 || n == 64<<10 || n%512 != 0 {
		t.Errorf("%d old bytes came back", n)
	}
}

func TestStrictPowerHasOneWriter(t *testing.T) {
	p := pooltest.NewPower()
	p.Strict()
	const name = "l/data"
	if err := p.Create(t.Context(), name, 4096); err != nil {
		t.Fatal(err)
	}
	writer, err := p.Open(t.Context(), name, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{false, true} {
		if _, err := p.Open(t.Context(), name, readOnly); !errors.Is(err, pool.ErrInUse) {
			t.Errorf("opened beside a writer, readOnly %v: %v", readOnly, err)
		}
	}
	if err := writer.Freeze(); err != nil {
		t.Fatal(err)
	}
	if _, err := p.Open(t.Context(), name, true); err != nil {
		t.Errorf("beside a frozen opening: %v", err)
	}
	if err := writer.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := writer.ReadAt(make([]byte, 1), 0); err == nil {
		t.Error("what was closed can be read")
	}
	p.CutAfter(0)
	if err := p.Step(); !errors.Is(err, pooltest.ErrPower) || !p.Off() {
		t.Errorf("the power is not off: %v", err)
	}
	p.Resume()
	if _, err := p.Open(t.Context(), name, false); err != nil {
		t.Errorf("after a cut nobody has it open: %v", err)
	}
}
