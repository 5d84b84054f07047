package catalog

import (
	"context"
	"strings"
	"sync"
)

// watchBuffer is how many events a slow watcher may leave unread before it is told to list again.
const watchBuffer = 16

type watcher struct {
	prefix string
	ch     chan Event
}

// watchers are those who want hints. Its lock makes it the only sender on each channel.
type watchers struct {
	mu     sync.Mutex
	closed bool
	set    map[*watcher]struct{}
}

// add registers a watcher; its channel is closed when ctx ends or the store closes.
func (w *watchers) add(ctx context.Context, prefix string) <-chan Event {
	n := &watcher{prefix: prefix, ch: make(chan Event, watchBuffer)}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		close(n.ch)
		return n.ch
	}
	if w.set == nil {
		w.set = make(map[*watcher]struct{})
	}
	w.set[n] = struct{}{}
	context.AfterFunc(ctx, func() { w.remove(n) })
	return n.ch
}

func (w *watchers) remove(n *watcher) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.set[n]; ok {
		delete(w.set, n)
		close(n.ch)
	}
}

func (w *watchers) notify(keys []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for n := range w.set {
		n.send(keys)
	}
}

// send never waits: where the watcher is behind, all that it has not read becomes one Lost event.
func (n *watcher) send(keys []string) {
	var mine []string
	for _, k := range keys {
		if strings.HasPrefix(k, n.prefix) {
			mine = append(mine, k)
		}
	}
	if mine == nil {
		return
	}
	select {
	case n.ch <- Event{Keys: mine}:
		return
	default:
	}
	for {
		select {
		case <-n.ch:
			continue
		default:
		}
		n.ch <- Event{Lost: true}
		return
	}
}

func (w *watchers) close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.closed = true
	for n := range w.set {
		delete(w.set, n)
		close(n.ch)
	}
}
