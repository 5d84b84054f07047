package daemon

import (
	"errors"
	"fmt"
	"strings"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
	"nbdcrypt/pkg/shield"
)

// protect does what has to be done before the first key is in memory.
func (d *Daemon) protect() error {
	if err := shield.Raise(); err != nil {
		return err
	}
	d.flusher = becomeFlusher() == nil
	if err := useKeyMemory(d.o.KeyMemory); err != nil {
		return err
	}
	s, err := shield.Look()
	if err != nil {
		return err
	}
	for _, w := range weaknesses(s) {
		d.warn(w)
	}
	return nil
}

// useKeyMemory has all keys lie in one kind of memory, and tries that: an attach should not be what finds out.
func useKeyMemory(kind string) error {
	switch kind {
	case "", "auto":
		return nil
	case "locked":
		kind = secret.LockedMemory
	}
	if err := secret.Restrict(kind); err != nil {
		return err
	}
	trial, err := secret.Work(1, secret.Purpose{Kind: "trial", For: "finding out about key memory"})
	switch {
	case errors.Is(err, secret.ErrFull):
		return refusal.New(refusal.Failed, "raise RLIMIT_MEMLOCK (ulimit -l, LimitMEMLOCK= of systemd)", "keys can't lie in %s: %w", kind, err)
	case err != nil:
		return refusal.New(refusal.Failed, "give --key-memory auto for the best that there is here; memfd_secret needs Linux 5.14, "+
			"before 6.5 booted with secretmem.enable=1, and no container or service that forbids the call",
			"keys can't lie in %s: the kernel does not give it: %w", kind, err)
	}
	trial.Destroy()
	return nil
}

// weaknesses are what a person should know of the process's protection.
func weaknesses(s shield.State) (list []string) {
	if s.Swap.Kind == shield.SwapUnencrypted {
		list = append(list, fmt.Sprintf("swap is on and not known to be encrypted (%s): data of attached disks may get there, keys never; "+
			"encrypt it, or keep the daemon out of it with MemorySwapMax=0 of systemd", strings.Join(s.Swap.Areas, ", ")))
	}
	if !s.NoNewPrivs {
		list = append(list, "programs that the daemon starts could gain privileges: this build can't forbid it to all threads; "+
			"build it without cgo (CGO_ENABLED=0), or set NoNewPrivileges=yes of systemd")
	}
	return list
}

// protection is the state of the process as `status` tells it.
func protection(s shield.State) control.Protection {
	return control.Protection{Dumpable: s.Dumpable, Core: s.Core, NoNewPrivs: s.NoNewPrivs, Signals: s.Signals,
		Swap: string(s.Swap.Kind), SwapAreas: s.Swap.Areas, Hibernation: string(s.Hibernation)}
}
