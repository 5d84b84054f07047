package nbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"
)

// What Exports.Open answers besides an export. Clients are told ERR_UNKNOWN for the first two, in the same words:
// who may not open an export is not told that it exists (spec item 6). The log keeps them apart.
var (
	ErrUnknownExport = errors.New("nbd: no such export")
	ErrPolicy        = errors.New("nbd: export is not for this user")
	// ErrShutdown: the export, or the whole server, is on its way out.
	ErrShutdown = fmt.Errorf("nbd: shutting down: %w", syscall.ESHUTDOWN)
)

// Info is what LIST tells about an export.
type Info struct {
	Name        string
	Description string
}

// Exports is where the server finds what it serves, asked with the caller's identity each time.
type Exports interface {
	// List names the exports that peer may open, and no others.
	List(ctx context.Context, peer Peer) ([]Info, error)
	// Open returns the export of that name. The empty name asks for the default export: the only one that peer may
	// open, if there is just one.
	Open(ctx context.Context, peer Peer, name string) (*Export, error)
}
