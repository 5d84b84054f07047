package nbd

import (
	"syscall"

	"nbdcrypt/nbd/internal/wire"
)

// smallestHole is how many zeros are worth a chunk of their own.
const smallestHole = 4096

// read serves a READ (spec items 18 and 25).
func (s *session) read(r wire.Request) {
	switch {
	case r.Length == 0:
		s.answer(r, 0)
	case s.terms.structured && r.Flags&wire.CmdFlagDF == 0:
		s.readChunks(r)
	case r.Length <= pieceSize:
		s.readSmall(r)
	default:
		s.readLong(r)
	}
}

// readSmall answers with one header and all of the data behind it.
func (s *session) readSmall(r wire.Request) {
	err := s.readOpen(r, r.Offset, int(r.Length), wire.ChunkFlagDone)
	switch err {
	case nil:
		s.note(r, false)
	case errWouldWait:
		s.hand(s.newJob(r, max(jobCharge, int(r.Length))))
	default:
		s.answer(r, s.code(r, err))
	}
}

// readOpen reads a piece straight into the open parcel, where that does not have to wait for storage. Its header exists
// only once the data does.
func (s *session) readOpen(r wire.Request, off uint64, n int, flags uint16) error {
	if s.export.device.nowait == nil {
		return errWouldWait
	}
	head := s.terms.dataHead()
	b := s.reserve(head + n)
	s.work += n
	if err := s.export.readNow(b[head:], int64(off)); err != nil {
		return err
	}
	s.terms.appendDataHead(b[:0], r, off, n, flags)
	s.commit(head + n)
	return nil
}

// readLong answers as readSmall, with data that fills many parcels: all of it is read before the header is sent.
func (s *session) readLong(r wire.Request) {
	n := int(r.Length)
	s.out.pace()
	if !s.charge(n) {
		s.answer(r, uint32(syscall.ENOMEM))
		return
	}
	j := s.workers.get()
	j.Request, j.charge, j.began = r, n, s.began
	j.data = s.export.memory.get(n)
	err := s.readAhead(j)
	if err == errWouldWait {
		s.hand(j)
		return
	}
	s.flush()
	s.out.offer(s.readParcel(j, err))
	s.workers.put(j)
}

// readAhead reads what it can without waiting for storage.
func (s *session) readAhead(j *job) error {
	if s.export.device.nowait == nil {
		return errWouldWait
	}
	for j.done < len(j.data) {
		n := min(len(j.data)-j.done, pieceSize)
		if err := s.export.readNow(j.data[j.done:j.done+n], int64(j.Offset)+int64(j.done)); err != nil {
			return err
		}
		j.done += n
		s.work += n
	}
	return nil
}

// doRead is a worker's part of readSmall and readLong.
func (s *session) doRead(j *job) {
	if j.data == nil {
		j.data = s.export.memory.get(int(j.Length))
	}
	rest := j.Request
	rest.Offset += uint64(j.done)
	s.out.submit(s.readParcel(j, s.export.execute(rest, j.data[j.done:])))
}

// readParcel is a header and, behind it, the data; or the error alone.
func (s *session) readParcel(j *job, err error) *parcel {
	if err != nil {
		s.export.memory.put(j.data)
		return s.replyParcel(j.Request, j.charge, j.began, err)
	}
	p := newParcel()
	p.out = s.terms.appendDataHead(p.small[:0], j.Request, j.Offset, len(j.data), wire.ChunkFlagDone)
	p.next = dataParcel(j.data, j.charge)
	p.next.note(account{j.Type, false, j.Length, j.began})
	return p
}

// readChunks answers a READ in chunks: each piece is one, or a hole is (spec item 25). What would wait for storage is for
// workers, whose chunks come when they come. The last one to be sent says that it is the last.
func (s *session) readChunks(r wire.Request) {
	var w *whole
	var data uint64 // where the data that is known to be there ends
	for off, end := r.Offset, r.Offset+r.Length; off < end; {
		n, hole, err := s.nextRun(off, end, &data)
		var done uint16
		if off+n == end && w == nil {
			done = wire.ChunkFlagDone
		}
		switch {
		case err != nil:
		case hole:
			s.commit(len(s.terms.appendHole(s.reserve(maxHead)[:0], r, off, n, done)))
		default:
			err = s.readOpen(r, off, int(n), done)
		}
		switch {
		case err == errWouldWait:
			w = s.handRead(w, r, off, int(n))
		case err != nil:
			s.failAt(w, r, off, err)
			return
		case done != 0:
			s.note(r, false)
			return
		}
		if s.open != nil && len(s.open.out) >= openFull || s.work > turn {
			s.rest()
		}
		off += n
	}
	s.endRead(w, nil)
}

// nextRun is what the next chunk is about: the zeros at off, or a piece of data. What is known of the data behind off is
// remembered in data, so that the device is asked once for each run, and at the cost of one look for a small READ.
func (s *session) nextRun(off, end uint64, data *uint64) (n uint64, hole bool, err error) {
	n = cutPiece(off, end)
	if s.export.device.extenter == nil || end-off < smallestHole {
		return n, false, nil
	}
	for *data = max(*data, off); *data < off+n; {
		run, _, zero, err := s.export.extent(*data, end-*data)
		switch {
		case err != nil:
			return n, false, err
		case zero && run >= smallestHole && *data == off:
			return run, true, nil
		case zero && run >= smallestHole:
			return *data - off, false, nil
		}
		*data += run // a few zeros are sent as they are
	}
	return n, false, nil
}

// handRead gives a piece to a worker.
func (s *session) handRead(w *whole, r wire.Request, off uint64, n int) *whole {
	if w == nil {
		w = s.divide(r)
	}
	s.charge(n)
	s.handPiece(w, off, n, nil)
	return w
}

// doReadPiece is a worker's part of readChunks.
func (s *session) doReadPiece(j *job) {
	w, n := j.whole, int(j.Length)
	p := newParcel()
	data := s.export.memory.get(n)
	err := s.export.execute(j.Request, data)
	if err == nil {
		p.out = s.terms.appendDataHead(p.small[:0], w.Request, j.Offset, n, 0)
		p.next = dataParcel(data, j.charge)
	} else {
		s.export.memory.put(data)
		p.out = s.terms.appendErrorAt(p.small[:0], w.Request, j.Offset, s.code(w.Request, err), 0)
		p.charge = j.charge
	}
	s.out.submitPiece(p, w, err)
}

// failAt tells of an error at off: with its place, once chunks have told other things.
func (s *session) failAt(w *whole, r wire.Request, off uint64, err error) {
	code := s.code(r, err)
	switch {
	case w != nil:
		s.commit(len(s.terms.appendErrorAt(s.reserve(maxHead)[:0], r, off, code, 0)))
		s.endRead(w, err)
	case off == r.Offset:
		s.answer(r, code)
	default:
		s.commit(len(s.terms.appendErrorAt(s.reserve(maxHead)[:0], r, off, code, wire.ChunkFlagDone)))
		s.note(r, true)
	}
}

// endRead ends the loop's part of a READ of which workers have pieces. What the loop has made must be on its way before: a
// worker's chunk may be the last.
func (s *session) endRead(w *whole, err error) {
	s.flush()
	if !s.out.end(w, err) {
		return
	}
	s.commit(len(s.terms.appendChunk(s.reserve(maxHead)[:0], w.Request, wire.ChunkNone, wire.ChunkFlagDone, 0)))
	s.note(w.Request, w.failure != nil)
	w.recycle()
}
