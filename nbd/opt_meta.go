package nbd

import (
	"context"
	"encoding/binary"
	"slices"

	"nbdcrypt/nbd/internal/wire"
)

// maxMetaData is the longest LIST_META_CONTEXT or SET_META_CONTEXT that is read: a name, and far more queries than there are contexts.
const maxMetaData = 64 << 10

// metaQuery is what LIST_META_CONTEXT and SET_META_CONTEXT ask: an export, and words for contexts of it.
type metaQuery struct {
	name  string
	words []string
}

// asks tells whether one of the words is there.
func (q metaQuery) asks(word string) bool { return slices.Contains(q.words, word) }

// parseMeta reads the data of both options. Every length is held against what there is before it is used (spec item 26).
func parseMeta(data []byte) (metaQuery, *queryError) {
	name, rest, bad := metaString(data)
	if bad != nil {
		return metaQuery{}, bad
	}
	if len(rest) < 4 {
		return metaQuery{}, &queryError{wire.RepErrInvalid, "option is too short"}
	}
	count, rest := binary.BigEndian.Uint32(rest), rest[4:]
	q := metaQuery{name: name}
	for ; count > 0; count-- {
		var word string
		if word, rest, bad = metaString(rest); bad != nil {
			return metaQuery{}, bad
		}
		q.words = append(q.words, word)
	}
	if len(rest) > 0 {
		return metaQuery{}, &queryError{wire.RepErrInvalid, "the option is longer than its queries"}
	}
	return q, nil
}

// metaString reads a length and a string of that length.
func metaString(data []byte) (s string, rest []byte, bad *queryError) {
	if len(data) < 4 {
		return "", nil, &queryError{wire.RepErrInvalid, "option is too short"}
	}
	length, rest := binary.BigEndian.Uint32(data), data[4:]
	if uint64(length) > uint64(len(rest)) {
		return "", nil, &queryError{wire.RepErrInvalid, "a string is longer than the option"}
	}
	if length > wire.MaxString {
		return "", nil, &queryError{wire.RepErrTooBig, "a string is too long"}
	}
	if !wire.ValidString(rest[:length]) {
		return "", nil, &queryError{wire.RepErrInvalid, "a string is not UTF-8, or has a NUL in it"}
	}
	return string(rest[:length]), rest[length:], nil
}

// listMeta tells the contexts that an export has: all of them where nothing is asked for. What we don't know is no error.
func (o option) listMeta(ctx context.Context) error {
	export, q, err := o.readMeta(ctx)
	if export == nil || err != nil {
		return err
	}
	listed := len(q.words) == 0 || q.asks("base:") || q.asks(wire.BaseAllocation)
	return o.sendMeta(listed, 0)
}

// setMeta chooses contexts in place of those chosen before, which are gone also where it fails. They are bound to the name of the
// export, as GO finds it.
func (o option) setMeta(ctx context.Context) error {
	terms := &o.conn.terms
	terms.allocation, terms.metaExport = false, ""
	export, q, err := o.readMeta(ctx)
	if export == nil || err != nil {
		return err
	}
	terms.allocation, terms.metaExport = q.asks(wire.BaseAllocation), export.name
	return o.sendMeta(terms.allocation, wire.BaseAllocationID)
}

// readMeta reads either option and finds the export it is about; nil where the option was refused.
func (o option) readMeta(ctx context.Context) (*Export, metaQuery, error) {
	if !o.conn.terms.structured {
		return nil, metaQuery{}, o.refuse(wire.RepErrInvalid, "ask for structured replies first")
	}
	if o.Length > maxMetaData {
		return nil, metaQuery{}, o.refuse(wire.RepErrTooBig, "option is too long")
	}
	data, err := o.data()
	if err != nil {
		return nil, metaQuery{}, err
	}
	q, bad := parseMeta(data)
	if bad != nil {
		return nil, q, o.reply(bad.kind, []byte(bad.why))
	}
	export, _, refused := o.find(ctx, q.name)
	if refused != 0 {
		return nil, q, o.reply(refused, []byte(reason(refused)))
	}
	return export, q, nil
}

// sendMeta names base:allocation, or nothing, and ends with ACK.
func (o option) sendMeta(allocation bool, id uint32) error {
	var b []byte
	if allocation {
		context := append(binary.BigEndian.AppendUint32(nil, id), wire.BaseAllocation...)
		b = wire.AppendOptionReply(b, o.ID, wire.RepMetaContext, context)
	}
	return o.send(wire.AppendOptionReply(b, o.ID, wire.RepAck, nil))
}
