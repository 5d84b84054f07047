package nbd

import (
	"encoding/binary"
	"errors"
	"syscall"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// openSize is the memory for one piece of a long READ, batchSize that for small answers: a client that does not read pins no
	// more of it than it must.
	openSize  = 512 << 10
	batchSize = 64 << 10
	openFull  = pieceSize
	// pageSize is where copying differs: to a place a little behind that of the source in its page it takes half as long
	// again, since each load then waits for the store before it.
	pageSize = 4096
	// maxHead is the longest header with what comes before the data, or all of it.
	maxHead = wire.ExtChunkSize + 16
)

// reserve returns the next n bytes of the open parcel; commit makes them part of it.
func (s *session) reserve(n int) []byte {
	if p := s.open; p != nil && (p.crowded() || len(p.out)+n > cap(p.out)) {
		s.flush()
	}
	if s.open == nil {
		s.out.pace()
		size := openSize
		if n <= batchSize/4 {
			size = batchSize
		}
		s.charge(size)
		p := newParcel()
		p.memory, p.charge = s.export.memory.get(size), size
		pad := s.pad(n)
		p.out = p.memory[pad:pad]
		s.open = p
	}
	used := len(s.open.out)
	return s.open.out[used : used+n]
}

// pad is where in its memory a parcel begins whose first answer has n bytes. Data that comes from whole pages is copied and
// decrypted faster if it stands at a cache line, and not a little further in its page than before: so one long piece stands at a
// page, and a batch of small ones, of which each stands a header further than the last, from the middle of one on.
func (s *session) pad(n int) int {
	head := s.terms.dataHead()
	if n > pageSize+head {
		return pageSize - head
	}
	return pageSize/2 + 64 - head
}

// commit adds what was written into reserved bytes.
func (s *session) commit(n int) {
	p := s.open
	p.out = p.out[:len(p.out)+n]
}

// flush sends the open parcel, or as much of it as the socket takes.
func (s *session) flush() {
	if p := s.open; p != nil {
		s.open = nil
		s.out.offer(p)
	}
}

// push sends all there is, while the loop waits for something.
func (s *session) push() {
	s.flush()
	s.out.push()
}

// note has the counters told of an answer in the open parcel, and sends that once it is long enough.
func (s *session) note(r wire.Request, failed bool) {
	s.open.note(account{r.Type, failed, r.Length, s.began})
	if len(s.open.out) >= openFull {
		s.flush()
	}
}

// answer ends a request from the loop.
func (s *session) answer(r wire.Request, code uint32) {
	s.commit(len(s.terms.appendAnswer(s.reserve(maxHead)[:0], r, code)))
	s.note(r, code != 0)
}

// reply ends a request from a worker.
func (s *session) reply(r wire.Request, charge int, began time.Duration, err error) {
	s.out.submit(s.replyParcel(r, charge, began, err))
}

// replyParcel is the answer to a request without data.
func (s *session) replyParcel(r wire.Request, charge int, began time.Duration, err error) *parcel {
	p := newParcel()
	p.out = s.terms.appendAnswer(p.small[:0], r, s.code(r, err))
	p.charge = charge
	p.note(account{r.Type, err != nil, r.Length, began})
	return p
}

// code is what goes over the wire for an error, which is logged where it is the device's.
func (s *session) code(r wire.Request, err error) uint32 {
	if err == nil {
		return 0
	}
	if r.Flags&wire.CmdFlagFastZero != 0 && errors.Is(err, syscall.ENOTSUP) {
		return uint32(syscall.ENOTSUP) // as it should be told (spec item 19)
	}
	if !errors.Is(err, ErrShutdown) {
		s.conn.complain("request failed", err, "export", s.export.name, "command", r.Type)
	}
	return wire.Code(err)
}

// appendAnswer appends the only header of an answer that has no data. With structured replies errors are chunks, as
// the answers to a READ must be; with extended headers all are.
func (t terms) appendAnswer(b []byte, r wire.Request, code uint32) []byte {
	switch {
	case t.structured && code != 0:
		b = t.appendChunk(b, r, wire.ChunkError, wire.ChunkFlagDone, 6)
		b = binary.BigEndian.AppendUint32(b, code)
		return binary.BigEndian.AppendUint16(b, 0)
	case t.extended, t.structured && r.Type == wire.CmdRead:
		return t.appendChunk(b, r, wire.ChunkNone, wire.ChunkFlagDone, 0)
	}
	return appendSimple(b, r, code)
}

func appendSimple(b []byte, r wire.Request, code uint32) []byte {
	var head [wire.ReplySize]byte
	wire.PutReply(&head, wire.Reply{Error: code, Cookie: r.Cookie})
	return append(b, head[:]...)
}

// appendChunk appends a chunk's header.
func (t terms) appendChunk(b []byte, r wire.Request, kind, flags uint16, length int) []byte {
	c := wire.Chunk{Flags: flags, Type: kind, Cookie: r.Cookie, Offset: r.Offset, Length: uint64(length)}
	if t.extended {
		return wire.AppendExtChunk(b, c)
	}
	return wire.AppendChunk(b, c)
}

// dataHead is how long the header before a READ's data is.
func (t terms) dataHead() int {
	switch {
	case t.extended:
		return wire.ExtChunkSize + 8
	case t.structured:
		return wire.ChunkSize + 8
	}
	return wire.ReplySize
}

// appendDataHead appends the header before n bytes of data, which are at off.
func (t terms) appendDataHead(b []byte, r wire.Request, off uint64, n int, flags uint16) []byte {
	if !t.structured {
		return appendSimple(b, r, 0)
	}
	b = t.appendChunk(b, r, wire.ChunkOffsetData, flags, n+8)
	return binary.BigEndian.AppendUint64(b, off)
}

// appendHole appends a chunk that stands for n zeros.
func (t terms) appendHole(b []byte, r wire.Request, off, n uint64, flags uint16) []byte {
	b = t.appendChunk(b, r, wire.ChunkOffsetHole, flags, 12)
	b = binary.BigEndian.AppendUint64(b, off)
	return binary.BigEndian.AppendUint32(b, uint32(n))
}

// appendErrorAt appends a chunk that tells of an error in the piece at off.
func (t terms) appendErrorAt(b []byte, r wire.Request, off uint64, code uint32, flags uint16) []byte {
	b = t.appendChunk(b, r, wire.ChunkErrorOffset, flags, 14)
	b = binary.BigEndian.AppendUint32(b, code)
	b = binary.BigEndian.AppendUint16(b, 0)
	return binary.BigEndian.AppendUint64(b, off)
}
