package nbd

import "nbdcrypt/nbd/internal/wire"

// extendedHeaders agrees on headers with 64-bit lengths, whether or not structured replies were asked for before; they
// are part of it (spec item 28).
func (o option) extendedHeaders() error {
	switch {
	case o.Length != 0:
		return o.refuse(wire.RepErrInvalid, "EXTENDED_HEADERS takes no data")
	case o.conn.terms.extended:
		return o.reply(wire.RepErrInvalid, []byte("extended headers are agreed on already"))
	}
	o.conn.terms.extended, o.conn.terms.structured = true, true
	return o.reply(wire.RepAck, nil)
}
