package seed

import (
	"context"

	"nbdcrypt/pkg/pool"
)

// nowhere is a pool of which nothing stays: the disks are for the catalog alone.
type nowhere struct{ pool.Pool }

// Capabilities implements pool.Pool.
func (nowhere) Capabilities() pool.Capabilities { return pool.Capabilities{} }

// Space implements pool.Pool.
func (nowhere) Space() (pool.Space, error) { return pool.Space{}, nil }

// Create implements pool.Pool.
func (nowhere) Create(context.Context, string, int64) error { return nil }

// Open implements pool.Pool.
func (nowhere) Open(context.Context, string, bool) (pool.Volume, error) { return nothing{}, nil }

// Segments implements pool.Pool.
func (nowhere) Segments(string) ([]string, error) { return nil, nil }

// nothing takes writes and keeps none.
type nothing struct{ pool.Volume }

// WriteAt implements pool.Volume.
func (nothing) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// Flush implements pool.Volume.
func (nothing) Flush() error { return nil }

// Close implements pool.Volume.
func (nothing) Close() error { return nil }
