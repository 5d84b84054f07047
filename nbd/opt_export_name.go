package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"nbdcrypt/nbd/internal/wire"
)

// exportName opens an export for a client that negotiates nothing. There is no error reply, so what fails ends the
// session (spec item 4); the answer is padded unless the client asked not to (spec item 2).
func (o option) exportName(ctx context.Context) (*Export, error) {
	if o.conn.terms.extended {
		return nil, errors.New("nbd: EXPORT_NAME after EXTENDED_HEADERS, which the protocol forbids")
	}
	if o.Length > wire.MaxString {
		return nil, fmt.Errorf("nbd: export name of %d bytes", o.Length)
	}
	name, err := o.data()
	if err != nil {
		return nil, err
	}
	if !wire.ValidString(name) {
		return nil, fmt.Errorf("nbd: export name %.100q is not a string", name)
	}
	export, size, refused := o.find(ctx, string(name))
	if refused != 0 || !export.join(o.conn) {
		return nil, nil
	}
	if err := o.openUnasked(export, size); err != nil {
		export.part(o.conn)
		return nil, err
	}
	o.conn.terms.settle(export)
	return export, nil
}

// openUnasked tells size and flags.
func (o option) openUnasked(export *Export, size int64) error {
	answer := binary.BigEndian.AppendUint64(nil, uint64(size))
	answer = binary.BigEndian.AppendUint16(answer, export.flags(o.conn.terms))
	if !o.conn.noZeroes {
		answer = append(answer, make([]byte, wire.ExportNamePadded)...)
	}
	return o.send(answer)
}
