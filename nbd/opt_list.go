package nbd

import (
	"context"
	"encoding/binary"

	"nbdcrypt/nbd/internal/wire"
)

// list tells the exports that the caller may open, one reply each, then ACK (spec item 6).
func (o option) list(ctx context.Context) error {
	if o.Length != 0 {
		return o.refuse(wire.RepErrInvalid, "LIST takes no data")
	}
	infos, err := o.conn.server.exports.List(ctx, o.conn.peer)
	if err != nil {
		o.conn.complain("listing exports", err)
		return o.reply(wire.RepErrPlatform, []byte("the server failed to list its exports; its log says why"))
	}
	var answer []byte
	for _, info := range infos {
		if data := listed(info); data != nil {
			answer = wire.AppendOptionReply(answer, o.ID, wire.RepServer, data)
		}
	}
	return o.send(wire.AppendOptionReply(answer, o.ID, wire.RepAck, nil))
}

// listed is what LIST says of one export; nil where its name can't be said in the protocol.
func listed(info Info) []byte {
	if !wire.ValidString([]byte(info.Name)) {
		return nil
	}
	data := binary.BigEndian.AppendUint32(nil, uint32(len(info.Name)))
	data = append(data, info.Name...)
	if wire.ValidString([]byte(info.Description)) {
		data = append(data, info.Description...)
	}
	return data
}
