package vm

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"

	"nbdcrypt/pkg/control"
)

// pause is the time in which QEMU lets the guest stand still, because a disk of it took a write badly that may go well later: the pool is full.
type pause struct {
	why    string
	times  int  // how often it stood still
	trying bool // it will be told to go on
	told   map[string]bool
}

// diskFailed is an error of a disk, of which the guest is told, or stands still.
func (r *runner) diskFailed(data json.RawMessage) {
	var e struct {
		Node      string `json:"node-name"`
		Operation string
		Action    string
		Reason    string
	}
	if json.Unmarshal(data, &e) != nil {
		return
	}
	what := fmt.Sprintf("disk %s: a %s failed: %s", r.disks.nameOf(e.Node), e.Operation, cmp.Or(e.Reason, "I/O error"))
	if e.Action == "stop" {
		r.paused(what)
		return
	}
	if r.pause.told == nil {
		r.pause.told = map[string]bool{}
	}
	if !r.pause.told[what] {
		r.pause.told[what] = true
		r.Say("server %s: %s", r.server.Name, what)
	}
}

// paused is told once, and the guest is told to go on until it does.
func (r *runner) paused(why string) {
	r.pause.times++
	if r.pause.why == "" {
		r.pause.why = why
		r.link.send(control.RunReport{Paused: why})
		r.Say("server %s stands still: %s", r.server.Name, why)
	}
	if r.pause.trying {
		return // all requests in flight tell of it
	}
	r.pause.trying = true
	r.after(r.goOn, func() {
		r.pause.trying = false
		if r.qemu == nil {
			return // it begins again
		}
		monitor := r.qemu.monitor
		r.beside(func(ctx context.Context) error { return monitor.Do(ctx, "cont", nil, nil) }, func(error) {})
	})
}

// resumed believes that the guest goes on once it has for a while: what failed is tried first, and may fail again.
func (r *runner) resumed() {
	times := r.pause.times
	r.after(r.settle, func() {
		if r.pause.why == "" || r.pause.times != times {
			return
		}
		r.pause.why = ""
		r.link.send(control.RunReport{Resumed: true})
		r.Say("server %s goes on", r.server.Name)
	})
}
