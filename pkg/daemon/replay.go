package daemon

import (
	"container/list"
	"net/http"
	"sync"

	"github.com/google/uuid"

	"nbdcrypt/pkg/control"
)

// newRequest makes an id for a change that the daemon makes on its own, or that a client left unnamed.
func newRequest() string { return uuid.NewString() }

// replays remembers the answers of changes by request id: a client that lost its connection asks again with the same id
// and gets the answer that it missed, and nothing is done twice.
type replays struct {
	keep  int
	mu    sync.Mutex
	known map[replayKey]*list.Element
	order *list.List // of *answer, oldest first
}

type replayKey struct {
	uid     uint32
	request string
	what    string // method and path: an id stands for one call only
	body    control.Digest
}

// answer is one call's answer, written before done is closed.
type answer struct {
	key    replayKey
	done   chan struct{}
	status int
	body   any
	err    error
}

func newReplays(keep int) *replays {
	return &replays{keep: keep, known: map[replayKey]*list.Element{}, order: list.New()}
}

// begin returns the answer for a call, and whether the caller is to give it.
func (r *replays) begin(key replayKey) (a *answer, mine bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e := r.known[key]; e != nil {
		return e.Value.(*answer), false
	}
	a = &answer{key: key, done: make(chan struct{})}
	r.known[key] = r.order.PushBack(a)
	r.forget()
	return a, true
}

// forget drops the oldest answers that are over what is kept. One that is not given yet stays: a repetition must wait
// for it and not run beside it.
func (r *replays) forget() {
	for e := r.order.Front(); e != nil && r.order.Len() > r.keep; {
		next, a := e.Next(), e.Value.(*answer)
		select {
		case <-a.done:
			r.order.Remove(e)
			delete(r.known, a.key)
		default:
		}
		e = next
	}
}

// once runs do for the first call with a key; the others wait for its answer.
func (r *replays) once(key replayKey, do func() (int, any, error)) (int, any, error) {
	a, mine := r.begin(key)
	if !mine {
		<-a.done
		return a.status, a.body, a.err
	}
	defer close(a.done)
	a.status, a.err = http.StatusInternalServerError, errPanicked
	a.status, a.body, a.err = do()
	return a.status, a.body, a.err
}
