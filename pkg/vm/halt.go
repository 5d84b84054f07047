package vm

import (
	"context"
	"time"

	"nbdcrypt/pkg/refusal"
)

// early is how far a guest may have come that begins again by itself, as after a power cut.
const early = time.Minute

// halted looks why the guest stands still. With an internal error of KVM it stands still for good, which most of all happens on a host that is a virtual machine
// itself: what boot loaders do is the first that such a KVM can't.
func (r *runner) halted() {
	q := r.qemu
	if q == nil { // it has just begun
		if !r.over {
			r.after(r.firstTry, r.halted)
		}
		return
	}
	var is struct{ Status string }
	still := false
	r.beside(func(ctx context.Context) error {
		err := q.monitor.Do(ctx, "query-status", nil, &is)
		if err == nil && is.Status == "internal-error" {
			// Answered once all that the guest wrote has been written and flushed: none of it comes after what it writes when it has begun again.
			still = q.monitor.Do(ctx, "stop", nil, nil) == nil
		}
		return err
	}, func(err error) {
		if err == nil && is.Status == "internal-error" && q == r.qemu {
			r.broken(still)
		}
	})
}

// broken ends a QEMU whose guest can't go on; without KVM it may, if the disks are still.
func (r *runner) broken(still bool) {
	const why = "KVM could not go on with the guest (an internal error of QEMU)"
	changing := r.disks.by(func(d *drive) bool { return !d.ready || d.leaving }) != nil
	if still && r.link != nil && r.qemu.accelerator == "kvm" && time.Since(*r.server.Since) < early && r.stopping == nil && r.killed == "" && !changing {
		r.anew = true
		r.qemu.kill()
		r.Say("server %s begins again without KVM, and slowly: %s", r.server.Name, why)
		return
	}
	r.result = refusal.New(refusal.Failed, "`nbdcrypt server show` tells more; start it again", "server %s was switched off: %s", r.server.Name, why)
	r.switchOff("the guest was switched off: " + why)
}

// beginAgain starts QEMU anew on the disks that there are, without KVM.
func (r *runner) beginAgain() {
	r.anew, r.kvm, r.qemu, r.pause, r.shutdown = false, false, nil, pause{}, ""
	ctx, abort := context.WithCancelCause(r.ctx)
	r.abort = abort
	r.boot(ctx)
}
