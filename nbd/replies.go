package nbd

import (
	"net"

	"nbdcrypt/nbd/internal/wire"
)

// maxBatch is how many replies go out in one system call.
const maxBatch = 32

// reply is an answer on its way out; data follows the header of a successful READ.
type reply struct {
	wire.Reply
	data   []byte
	charge int
}

// writer sends a session's replies, as many at a time as are ready.
type writer struct {
	session *session
	batch   []reply
	heads   [maxBatch][wire.ReplySize]byte
	pieces  [2 * maxBatch][]byte
	vector  net.Buffers
	broken  bool
}

func newWriter(s *session) *writer {
	return &writer{session: s, batch: make([]reply, 0, maxBatch)}
}

// run sends until there are no more replies. Once the connection is broken they are only let go, so that workers
// and reader never wait for a client that is gone.
func (w *writer) run() {
	for first := range w.session.replies {
		w.gather(first)
		if !w.broken {
			w.send()
		}
		w.release()
	}
}

// gather takes what is ready without waiting for more.
func (w *writer) gather(first reply) {
	w.batch = append(w.batch[:0], first)
	for len(w.batch) < maxBatch {
		select {
		case r, ok := <-w.session.replies:
			if !ok {
				return
			}
			w.batch = append(w.batch, r)
		default:
			return
		}
	}
}

// send writes headers and data in one go. Half a reply can't be taken back, so a failure ends the connection, which
// wakes its reader.
func (w *writer) send() {
	n := 0
	for i, r := range w.batch {
		wire.PutReply(&w.heads[i], r.Reply)
		w.pieces[n] = w.heads[i][:]
		n++
		if len(r.data) > 0 {
			w.pieces[n] = r.data
			n++
		}
	}
	w.vector = w.pieces[:n]
	w.session.conn.beforeWrite()
	if _, err := w.vector.WriteTo(w.session.conn.nc); err != nil {
		w.broken = true
		w.session.conn.cut()
	}
}

func (w *writer) release() {
	for i := range w.batch {
		w.session.export.memory.put(w.batch[i].data)
		w.session.budget.give(w.batch[i].charge)
		w.batch[i] = reply{}
	}
}
