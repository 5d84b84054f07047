package nbd

import (
	"syscall"

	"nbdcrypt/nbd/internal/wire"
)

// rule is what one command allows.
type rule struct {
	flags   uint16        // the flags it takes; FUA is taken by every command (spec item 16)
	changes bool          // refused on a read-only export
	payload bool          // its length is memory, not only a range
	ranged  bool          // offset and length must lie inside the device
	pastEnd syscall.Errno // what a range past the end is
}

// ruleOf finds a command's rule; false means that the export has no such command.
func (e *Export) ruleOf(command uint16) (rule, bool) {
	switch command {
	case wire.CmdRead:
		return rule{payload: true, ranged: true, pastEnd: syscall.EINVAL}, true
	case wire.CmdWrite:
		return rule{changes: true, payload: true, ranged: true, pastEnd: syscall.ENOSPC}, true
	case wire.CmdFlush:
		return rule{}, true
	case wire.CmdTrim:
		return rule{changes: true, ranged: true, pastEnd: syscall.EINVAL}, e.device.trimmer != nil
	case wire.CmdWriteZeroes:
		return rule{flags: wire.CmdFlagNoHole, changes: true, ranged: true, pastEnd: syscall.ENOSPC}, true
	}
	return rule{}, false
}

// check is the one place where a request is judged before it costs anything: nil, or the errno that its client
// gets (spec items 12, 14, 16, 19 and 20).
func (e *Export) check(r wire.Request) error {
	rule, known := e.ruleOf(r.Type)
	switch {
	case !known:
		return syscall.EINVAL
	case r.Flags&^(rule.flags|wire.CmdFlagFUA) != 0:
		return syscall.EINVAL
	case rule.changes && e.options.ReadOnly:
		return syscall.EPERM
	case rule.payload && r.Length > wire.MaxPayload:
		return syscall.EINVAL
	case rule.ranged:
		return e.checkRange(r, rule.pastEnd)
	case r.Offset != 0 || r.Length != 0:
		return syscall.EINVAL
	}
	return nil
}

// checkRange compares without adding, so that nothing overflows (spec item 14). The device may have grown since the
// client looked, so it is asked each time.
func (e *Export) checkRange(r wire.Request, pastEnd syscall.Errno) error {
	size, err := e.size()
	if err != nil {
		return err
	}
	if r.Offset > uint64(size) || r.Length > uint64(size)-r.Offset {
		return pastEnd
	}
	return nil
}
