package nbd

import "nbdcrypt/nbd/internal/wire"

// smallestPart of a piece is worth a write of its own.
const smallestPart = 64 << 10

// write serves a WRITE, and returns an error where its payload does not come. What fits a piece is written once all of it
// is there, straight from where it was received.
func (s *session) write(r wire.Request) error {
	n := int(r.Length)
	switch {
	case n > pieceSize:
		return s.writeLong(r)
	case !s.writesNow(), r.Flags&wire.CmdFlagFUA != 0 && !s.syncsNow():
		return s.handWrite(r)
	}
	if err := s.want(n, loanSize); err != nil {
		return err
	}
	err := s.writeNow(r)
	s.answer(r, s.code(r, err))
	return nil
}

// writeNow writes what is next in the buffer.
func (s *session) writeNow(r wire.Request) error {
	s.writes++
	s.work += int(r.Length)
	return s.execute(r, s.in.next(int(r.Length)), s.began)
}

// handWrite gives a WRITE with a copy of its payload to a worker.
func (s *session) handWrite(r wire.Request) error {
	n := int(r.Length)
	j := s.newJob(r, max(jobCharge, n))
	data, err := s.payload(n)
	if err != nil {
		s.budget.give(j.charge)
		return err
	}
	j.data = data
	s.hand(j)
	return nil
}

// payload receives n bytes into memory of their own.
func (s *session) payload(n int) ([]byte, error) {
	data := s.export.memory.get(n)
	s.work += n
	err := s.in.read(data)
	s.wake()
	if err != nil {
		s.export.memory.put(data)
		return nil, err
	}
	return data, nil
}

// writeLong receives and writes piece by piece: NBD does not promise that a WRITE is done as a whole. With FUA a sync at
// the end costs less than one for each piece. After an error the rest of the payload is read away.
func (s *session) writeLong(r wire.Request) error {
	var w *whole
	var failure error
	began, piece := s.began, r
	piece.Flags &^= wire.CmdFlagFUA
	for off, end := r.Offset, r.Offset+r.Length; off < end; off += piece.Length {
		piece.Offset, piece.Length = off, cutPiece(off, end)
		if w != nil && failure == nil {
			failure = s.out.failed(w)
		}
		var err error
		switch {
		case failure != nil:
			piece.Length = end - off
			err = s.in.skip(int64(end - off))
		case s.writesNow():
			if piece.Length, err = s.part(piece); err == nil {
				failure = s.writeNow(piece)
			}
		default:
			if w == nil {
				w = s.divide(r)
				w.began = began
			}
			err = s.handWritePiece(w, piece)
		}
		if err != nil {
			return err
		}
	}
	// After a long WRITE there is often another one. Its payload is not moved if it is read to where it is used, and that is not
	// behind its header.
	s.apart = true
	s.began, began = began, s.began // it took since its header was read, and the next did not
	s.endWrite(r, w, failure)
	s.began = began
	return nil
}

// part waits for a piece, or for as much of it as is worth a write. A client's socket holds less than a piece, mostly: while
// that is written the client fills it again.
func (s *session) part(piece wire.Request) (uint64, error) {
	n := int(piece.Length)
	if err := s.want(min(n, smallestPart), n); err != nil {
		return 0, err
	}
	if have := len(s.in.buffered()); have < n {
		return (piece.Offset+uint64(have))/pieceCut*pieceCut - piece.Offset, nil
	}
	return piece.Length, nil
}

func (s *session) handWritePiece(w *whole, piece wire.Request) error {
	n := int(piece.Length)
	s.charge(n)
	data, err := s.payload(n)
	if err != nil {
		s.budget.give(n)
		return err
	}
	s.handPiece(w, piece.Offset, n, data)
	return nil
}

// endWrite ends the loop's part of a long WRITE.
func (s *session) endWrite(r wire.Request, w *whole, failure error) {
	durable := r.Flags&wire.CmdFlagFUA != 0
	if w == nil {
		if failure != nil || !durable {
			s.answer(r, s.code(r, failure))
			return
		}
		w = s.divide(r)
	}
	if !s.out.end(w, failure) {
		return
	}
	if w.failure == nil && durable {
		w.pieces, w.synced = 1, true
		j := s.workers.get()
		j.Type, j.whole, j.began = wire.CmdFlush, w, s.began
		s.hand(j)
		return
	}
	s.answer(r, s.code(r, w.failure))
	w.recycle()
}

// doWritePiece is a worker's part of writeLong. Who ends the last piece makes all durable where that was asked for, and
// answers.
func (s *session) doWritePiece(j *job) {
	piece := j.Request
	piece.Flags &^= wire.CmdFlagFUA
	err := s.execute(piece, j.data, j.began)
	s.export.memory.put(j.data)
	s.budget.give(j.charge)
	w := j.whole
	if !s.out.end(w, err) {
		return
	}
	if w.failure == nil && w.Flags&wire.CmdFlagFUA != 0 && !w.synced {
		w.failure = s.export.execute(wire.Request{Type: wire.CmdFlush}, nil)
	}
	s.budget.force(jobCharge)
	s.reply(w.Request, jobCharge, w.began, w.failure)
	w.recycle()
}

// do is what workers do.
func (s *session) do(j *job) {
	switch {
	case j.whole != nil && j.Type == wire.CmdRead:
		s.doReadPiece(j)
	case j.whole != nil:
		s.doWritePiece(j)
	case j.Type == wire.CmdRead:
		s.doRead(j)
	case j.Type == wire.CmdBlockStatus:
		s.doStatus(j)
	default:
		err := s.execute(j.Request, j.data, j.began)
		s.export.memory.put(j.data)
		s.reply(j.Request, j.charge, j.began, err)
	}
}
