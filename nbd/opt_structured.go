package nbd

import "nbdcrypt/nbd/internal/wire"

// structuredReply agrees on structured replies. Extended headers are more than that, and there is no way back
// (the protocol's words on ERR_EXT_HEADER_REQD).
func (o option) structuredReply() error {
	switch terms := &o.conn.terms; {
	case o.Length != 0:
		return o.refuse(wire.RepErrInvalid, "STRUCTURED_REPLY takes no data")
	case terms.extended:
		return o.reply(wire.RepErrExtReqd, []byte("extended headers are agreed on already"))
	case terms.structured:
		return o.reply(wire.RepErrInvalid, []byte("structured replies are agreed on already"))
	}
	o.conn.terms.structured = true
	return o.reply(wire.RepAck, nil)
}
