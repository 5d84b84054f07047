package wire

import (
	"encoding/binary"
	"unicode/utf8"
)

// Sizes of fixed layouts.
const (
	GreetingSize     = 18
	OptionSize       = 16
	OptionReplySize  = 20
	RequestSize      = 28
	ReplySize        = 16
	ExtRequestSize   = 32
	ChunkSize        = 20 // of a structured reply
	ExtChunkSize     = 32 // of an extended reply
	InfoExportSize   = 12
	InfoBlocksSize   = 14
	ExportNamePadded = 124
)

// Option is the header of an option that a client sends.
type Option struct {
	ID     uint32
	Length uint32
}

// DecodeOption reads an option's header; false tells a wrong magic number.
func DecodeOption(b *[OptionSize]byte) (Option, bool) {
	return Option{
		ID:     binary.BigEndian.Uint32(b[8:]),
		Length: binary.BigEndian.Uint32(b[12:]),
	}, binary.BigEndian.Uint64(b[:]) == MagicOption
}

// AppendOption appends an option with its data.
func AppendOption(b []byte, id uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, MagicOption)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// OptionReply is the header of what a server answers to an option.
type OptionReply struct {
	ID     uint32
	Type   uint32
	Length uint32
}

// DecodeOptionReply reads an option reply's header; false tells a wrong magic number.
func DecodeOptionReply(b *[OptionReplySize]byte) (OptionReply, bool) {
	return OptionReply{
		ID:     binary.BigEndian.Uint32(b[8:]),
		Type:   binary.BigEndian.Uint32(b[12:]),
		Length: binary.BigEndian.Uint32(b[16:]),
	}, binary.BigEndian.Uint64(b[:]) == MagicOptionReply
}

// AppendOptionReply appends an option reply with its data.
func AppendOptionReply(b []byte, id, kind uint32, data []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, MagicOptionReply)
	b = binary.BigEndian.AppendUint32(b, id)
	b = binary.BigEndian.AppendUint32(b, kind)
	b = binary.BigEndian.AppendUint32(b, uint32(len(data)))
	return append(b, data...)
}

// Request is the header of a request in the transmission phase.
type Request struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Offset uint64
	Length uint64
}

// DecodeRequest reads a request's header; false tells a wrong magic number.
func DecodeRequest(b *[RequestSize]byte) (Request, bool) {
	return Request{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: uint64(binary.BigEndian.Uint32(b[24:])),
	}, binary.BigEndian.Uint32(b[:]) == MagicRequest
}

// DecodeExtRequest reads a request's header on a connection with extended headers.
func DecodeExtRequest(b *[ExtRequestSize]byte) (Request, bool) {
	return Request{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint64(b[24:]),
	}, binary.BigEndian.Uint32(b[:]) == MagicExtendedRequest
}

// AppendRequest appends a request's header, whose length fits 32 bits.
func AppendRequest(b []byte, r Request) []byte {
	b = binary.BigEndian.AppendUint32(b, MagicRequest)
	b = binary.BigEndian.AppendUint16(b, r.Flags)
	b = binary.BigEndian.AppendUint16(b, r.Type)
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	return binary.BigEndian.AppendUint32(b, uint32(r.Length))
}

// AppendExtRequest appends a request's header for a connection with extended headers.
func AppendExtRequest(b []byte, r Request) []byte {
	b = binary.BigEndian.AppendUint32(b, MagicExtendedRequest)
	b = binary.BigEndian.AppendUint16(b, r.Flags)
	b = binary.BigEndian.AppendUint16(b, r.Type)
	b = binary.BigEndian.AppendUint64(b, r.Cookie)
	b = binary.BigEndian.AppendUint64(b, r.Offset)
	return binary.BigEndian.AppendUint64(b, r.Length)
}

// Chunk is the header of one chunk of a structured reply. Offset is on the wire with extended headers only.
type Chunk struct {
	Flags  uint16
	Type   uint16
	Cookie uint64
	Offset uint64
	Length uint64
}

// DecodeChunk reads a structured reply's header; false tells a wrong magic number.
func DecodeChunk(b *[ChunkSize]byte) (Chunk, bool) {
	return Chunk{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Length: uint64(binary.BigEndian.Uint32(b[16:])),
	}, binary.BigEndian.Uint32(b[:]) == MagicStructuredReply
}

// AppendChunk appends a structured reply's header, whose length fits 32 bits.
func AppendChunk(b []byte, c Chunk) []byte {
	b = binary.BigEndian.AppendUint32(b, MagicStructuredReply)
	b = binary.BigEndian.AppendUint16(b, c.Flags)
	b = binary.BigEndian.AppendUint16(b, c.Type)
	b = binary.BigEndian.AppendUint64(b, c.Cookie)
	return binary.BigEndian.AppendUint32(b, uint32(c.Length))
}

// DecodeExtChunk reads an extended reply's header.
func DecodeExtChunk(b *[ExtChunkSize]byte) (Chunk, bool) {
	return Chunk{
		Flags:  binary.BigEndian.Uint16(b[4:]),
		Type:   binary.BigEndian.Uint16(b[6:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
		Offset: binary.BigEndian.Uint64(b[16:]),
		Length: binary.BigEndian.Uint64(b[24:]),
	}, binary.BigEndian.Uint32(b[:]) == MagicExtendedReply
}

// AppendExtChunk appends an extended reply's header.
func AppendExtChunk(b []byte, c Chunk) []byte {
	b = binary.BigEndian.AppendUint32(b, MagicExtendedReply)
	b = binary.BigEndian.AppendUint16(b, c.Flags)
	b = binary.BigEndian.AppendUint16(b, c.Type)
	b = binary.BigEndian.AppendUint64(b, c.Cookie)
	b = binary.BigEndian.AppendUint64(b, c.Offset)
	return binary.BigEndian.AppendUint64(b, c.Length)
}

// Reply is the header of a simple reply.
type Reply struct {
	Error  uint32
	Cookie uint64
}

// DecodeReply reads a simple reply's header; false tells a wrong magic number.
func DecodeReply(b *[ReplySize]byte) (Reply, bool) {
	return Reply{
		Error:  binary.BigEndian.Uint32(b[4:]),
		Cookie: binary.BigEndian.Uint64(b[8:]),
	}, binary.BigEndian.Uint32(b[:]) == MagicReply
}

// PutReply writes a simple reply's header into b.
func PutReply(b *[ReplySize]byte, r Reply) {
	binary.BigEndian.PutUint32(b[0:], MagicReply)
	binary.BigEndian.PutUint32(b[4:], r.Error)
	binary.BigEndian.PutUint64(b[8:], r.Cookie)
}

// ValidString tells whether b may be a string of the protocol: at most 4096 bytes of UTF-8 without a NUL.
func ValidString(b []byte) bool {
	if len(b) > MaxString || !utf8.Valid(b) {
		return false
	}
	for _, c := range b {
		if c == 0 {
			return false
		}
	}
	return true
}
