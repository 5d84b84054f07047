package nbd

import (
	"errors"

	"nbdcrypt/nbd/internal/wire"
)

// maxWorkers is how many device calls one connection may have in progress.
const maxWorkers = 16

// job is a request that passed its checks, with its payload where it has one.
type job struct {
	wire.Request
	data []byte
}

// charge is how much of the budget a request takes until it is answered.
func (j job) charge() int {
	if j.Type == wire.CmdRead || j.Type == wire.CmdWrite {
		return int(j.Length)
	}
	return 0
}

// hand gives the job to a free worker, to a new one, or waits. A new one is hired only while all are busy.
func (s *session) hand(j job) {
	select {
	case s.work <- j:
		return
	default:
	}
	if s.hired < maxWorkers {
		s.hired++
		s.workers.Go(s.labour)
	}
	s.work <- j
}

func (s *session) labour() {
	for j := range s.work {
		s.replies <- s.do(j)
	}
}

// do runs one job. A READ's data is complete before its reply exists (spec item 18), and what carried plaintext goes
// back to the export's memory.
func (s *session) do(j job) reply {
	if j.Type == wire.CmdRead {
		j.data = s.export.memory.get(int(j.Length))
	}
	err := s.export.execute(j.Request, j.data)
	answer := reply{Reply: wire.Reply{Error: wire.Code(err), Cookie: j.Cookie}, charge: j.charge()}
	if err == nil && j.Type == wire.CmdRead {
		answer.data = j.data
		return answer
	}
	s.export.memory.put(j.data)
	if err != nil && !errors.Is(err, ErrShutdown) {
		s.conn.complain("request failed", err, "export", s.export.name, "command", j.Type)
	}
	return answer
}
