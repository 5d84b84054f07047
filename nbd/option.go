package nbd

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/nbd/internal/wire"
)

// refuse skips the option's data to the byte and answers with an error (spec item 3).
func (o option) refuse(kind uint32, why string) error {
	if err := o.conn.in.skip(int64(o.Length)); err != nil {
		return fmt.Errorf("nbd: option data: %w", err)
	}
	return o.reply(kind, []byte(why))
}

// reply sends one option reply.
func (o option) reply(kind uint32, data []byte) error {
	return o.send(wire.AppendOptionReply(nil, o.ID, kind, data))
}

func (o option) send(b []byte) error {
	if _, err := o.conn.nc.Write(b); err != nil {
		return fmt.Errorf("nbd: option reply: %w", err)
	}
	return nil
}

// data reads the option's data, which the caller has found to be no longer than it may be.
func (o option) data() ([]byte, error) {
	b := make([]byte, o.Length)
	if err := o.conn.in.read(b); err != nil {
		return nil, fmt.Errorf("nbd: option data: %w", unexpected(err))
	}
	return b, nil
}

// find opens an export for the client and asks its size. The last result is the error reply that the client gets
// instead, 0 for none.
func (o option) find(ctx context.Context, name string) (*Export, int64, uint32) {
	if o.conn.server.quiet.Load() {
		return nil, 0, wire.RepErrShutdown
	}
	export, err := o.conn.server.exports.Open(ctx, o.conn.peer, name)
	var size int64
	if err == nil {
		size, err = export.size()
	}
	if err == nil {
		return export, size, 0
	}
	o.conn.complain("export refused", err, "export", fmt.Sprintf("%.100s", name))
	switch {
	case errors.Is(err, ErrShutdown):
		return nil, 0, wire.RepErrShutdown
	case errors.Is(err, ErrUnknownExport), errors.Is(err, ErrPolicy):
		return nil, 0, wire.RepErrUnknown
	}
	return nil, 0, wire.RepErrPlatform
}

// reason is the words that go with what find and barred answer. The same for an export that does not exist and for one that
// is not for this user.
func reason(kind uint32) string {
	switch kind {
	case wire.RepErrTLSReqd:
		return "this server wants TLS: upgrade first"
	case wire.RepErrShutdown:
		return "shutting down: the disk is being detached, or the server is ending"
	case wire.RepErrUnknown:
		return "no export of that name is open to you: is the disk attached, and for this user?"
	}
	return "the server failed to open the export; its log says why"
}
