package nbd

import (
	"encoding/binary"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// statusCharge bounds the answer to one BLOCK_STATUS, and so how many extents there are in it: fewer than the protocol
	// allows at most (2²⁰), so that an answer is always small enough to be served. The client asks on from there.
	statusCharge = 512 << 10
	// statusStart is room for the answer to most.
	statusStart = 4096
)

// statusList is the answer to a BLOCK_STATUS as it grows.
type statusList struct {
	memory   *buffers
	extended bool
	b        []byte
	count    uint32
}

// add appends an extent; false means that the list is full.
func (l *statusList) add(length uint64, state uint32) bool {
	const longest = 16
	if len(l.b)+longest > cap(l.b) {
		if 2*cap(l.b) > statusCharge {
			return false
		}
		larger := l.memory.get(2 * cap(l.b))
		n := copy(larger, l.b)
		l.memory.put(l.b)
		l.b = larger[:n]
	}
	l.count++
	if l.extended {
		l.b = binary.BigEndian.AppendUint64(l.b, length)
		l.b = binary.BigEndian.AppendUint64(l.b, uint64(state))
		return true
	}
	l.b = binary.BigEndian.AppendUint32(l.b, uint32(length))
	l.b = binary.BigEndian.AppendUint32(l.b, state)
	return true
}

// doStatus answers BLOCK_STATUS (spec item 27).
func (s *session) doStatus(j *job) {
	t := s.terms
	list := statusList{memory: &s.export.memory, extended: t.extended, b: s.export.memory.get(statusStart)}
	head := wire.ChunkSize + 4
	kind := wire.ChunkBlockStatus
	if t.extended {
		head, kind = wire.ExtChunkSize+8, wire.ChunkBlockStatusExt
	}
	list.b = list.b[:head]
	if err := s.export.status(j.Request, &list); err != nil {
		list.memory.put(list.b)
		s.reply(j.Request, j.charge, j.began, err)
		return
	}
	size := wire.ChunkSize
	if t.extended {
		size = wire.ExtChunkSize
	}
	b := t.appendChunk(list.b[:0], j.Request, kind, wire.ChunkFlagDone, len(list.b)-size)
	b = binary.BigEndian.AppendUint32(b, wire.BaseAllocationID)
	if t.extended {
		binary.BigEndian.AppendUint32(b, list.count)
	}
	p := dataParcel(list.b, j.charge)
	p.note(account{j.Type, false, j.Length, j.began})
	s.out.submit(p)
}

// status lists the extents of a range, neighbours of one kind as one. It ends where the list is full, and after one extent
// where no more were asked for.
func (e *Export) status(r wire.Request, list *statusList) error {
	var length uint64
	var state uint32
	for off, end := r.Offset, r.Offset+r.Length; off < end; {
		n, hole, zero, err := e.extent(off, end-off)
		if err != nil {
			return err
		}
		is := stateOf(hole, zero)
		if length > 0 && is != state {
			if r.Flags&wire.CmdFlagReqOne != 0 {
				break
			}
			if !list.add(length, state) {
				return nil
			}
			length = 0
		}
		state = is
		length += n
		off += n
	}
	list.add(length, state)
	return nil
}

// stateOf is what base:allocation tells of an extent.
func stateOf(hole, zero bool) (state uint32) {
	if hole {
		state |= wire.StateHole
	}
	if zero {
		state |= wire.StateZero
	}
	return state
}
