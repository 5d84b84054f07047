package nbd

import (
	"context"
	"encoding/binary"
	"fmt"

	"nbdcrypt/nbd/internal/wire"
)

// query is what INFO and GO ask: an export, and what the client wants to know about it.
type query struct {
	name                         string
	wantName, wantText, wantSize bool
}

// queryError is a query that is refused, with the reply it gets.
type queryError struct {
	kind uint32
	why  string
}

func (e *queryError) Error() string { return e.why }

// parseQuery reads the data of INFO and GO: the name's length, the name, how many requests, the requests
// (spec items 7 and 8). Requests that we don't know are ignored.
func parseQuery(data []byte) (query, *queryError) {
	if len(data) < 6 {
		return query{}, &queryError{wire.RepErrInvalid, "option is too short"}
	}
	length := binary.BigEndian.Uint32(data)
	if uint64(length) > uint64(len(data)-6) {
		return query{}, &queryError{wire.RepErrInvalid, "the name is longer than the option"}
	}
	if length > wire.MaxString {
		return query{}, &queryError{wire.RepErrTooBig, "the name is too long"}
	}
	name, rest := data[4:4+length], data[4+length:]
	if !wire.ValidString(name) {
		return query{}, &queryError{wire.RepErrInvalid, "the name is not UTF-8, or has a NUL in it"}
	}
	count, asked := int(binary.BigEndian.Uint16(rest)), rest[2:]
	if len(asked) != 2*count {
		return query{}, &queryError{wire.RepErrInvalid, "the option's length is not that of its requests"}
	}
	q := query{name: string(name)}
	for ; len(asked) > 0; asked = asked[2:] {
		q.want(binary.BigEndian.Uint16(asked))
	}
	return q, nil
}

func (q *query) want(kind uint16) {
	switch kind {
	case wire.InfoName:
		q.wantName = true
	case wire.InfoDescription:
		q.wantText = true
	case wire.InfoBlockSize:
		q.wantSize = true
	}
}

// info answers INFO: what GO would tell, without opening.
func (o option) info(ctx context.Context) error {
	_, err := o.describe(ctx, func(*Export) bool { return true })
	return err
}

// open answers GO. The session goes on after a refusal; no export is returned then.
func (o option) open(ctx context.Context) (*Export, error) {
	export, err := o.describe(ctx, func(e *Export) bool { return e.join(o.conn) })
	if err != nil && export != nil {
		export.part(o.conn)
		return nil, err
	}
	if export != nil {
		o.conn.terms.settle(export)
	}
	return export, err
}

// describe reads a query and answers it: INFO and GO of one name tell the same (spec item 7). accept is asked
// before anything is told. The export is returned where it was accepted, also with the error of a failed send.
func (o option) describe(ctx context.Context, accept func(*Export) bool) (*Export, error) {
	if o.Length > maxOptionData {
		return nil, o.refuse(wire.RepErrTooBig, "option is too long")
	}
	data, err := o.data()
	if err != nil {
		return nil, err
	}
	q, bad := parseQuery(data)
	if bad != nil {
		return nil, o.reply(bad.kind, []byte(bad.why))
	}
	export, size, refused := o.find(ctx, q.name)
	if refused == 0 && !accept(export) {
		refused = wire.RepErrShutdown
	}
	if refused != 0 {
		return nil, o.reply(refused, []byte(reason(refused)))
	}
	if err := o.send(o.description(export, q, size)); err != nil {
		return export, fmt.Errorf("nbd: describing %q: %w", export.name, err)
	}
	return export, nil
}

// description is every information reply that was asked for, INFO_EXPORT always, and the ACK.
func (o option) description(e *Export, q query, size int64) []byte {
	var b []byte
	add := func(kind uint16, data []byte) {
		b = wire.AppendOptionReply(b, o.ID, wire.RepInfo, append(binary.BigEndian.AppendUint16(nil, kind), data...))
	}
	about := binary.BigEndian.AppendUint64(nil, uint64(size))
	add(wire.InfoExport, binary.BigEndian.AppendUint16(about, e.flags(o.conn.terms)))
	if q.wantName {
		add(wire.InfoName, []byte(e.name))
	}
	if q.wantText && wire.ValidString([]byte(e.options.Description)) {
		add(wire.InfoDescription, []byte(e.options.Description))
	}
	if q.wantSize {
		minimum, preferred := e.blockSizes(size)
		sizes := binary.BigEndian.AppendUint32(nil, minimum)
		sizes = binary.BigEndian.AppendUint32(sizes, preferred)
		add(wire.InfoBlockSize, binary.BigEndian.AppendUint32(sizes, maximumBlock))
	}
	return wire.AppendOptionReply(b, o.ID, wire.RepAck, nil)
}
