package keeper

import (
	"context"
	"testing"
	"time"

	"nbdcrypt/pkg/blockdev"
)

// quiet is a device to which nothing happens.
type quiet struct{ Device }

func (quiet) Path() string                                { return "/dev/nbd0" }
func (quiet) Watch(context.Context) <-chan blockdev.Event { return make(chan blockdev.Event) }
func (quiet) Note(string) error                           { return nil }

// A signal that came before the keeper listened for any, and ended ctx, ends it like any other.
func TestSignalBefore(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	ended := make(chan error, 1)
	go func() {
		ended <- Run(ctx, Options{Device: quiet{}, Say: t.Logf, End: func(ctx context.Context) error { return ctx.Err() }})
	}()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it stays")
	}
}
