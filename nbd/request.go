package nbd

import (
	"syscall"

	"nbdcrypt/nbd/internal/wire"
)

// rule is what one command allows.
type rule struct {
	flags   uint16        // the flags it takes; FUA is taken by every command (spec item 16)
	changes bool          // refused on a read-only export
	ranged  bool          // offset and length must lie inside the device
	pastEnd syscall.Errno // what a range past the end is
	tooLong syscall.Errno // what more than wire.MaxPayload is, where its length is memory and not only a range
}

// ruleOf finds a command's rule; false means that there is no such command on this export and connection.
func (e *Export) ruleOf(command uint16, t terms) (rule, bool) {
	switch command {
	case wire.CmdRead:
		if t.structured {
			return rule{flags: wire.CmdFlagDF, ranged: true, pastEnd: syscall.EINVAL, tooLong: syscall.EOVERFLOW}, true
		}
		return rule{ranged: true, pastEnd: syscall.EINVAL, tooLong: syscall.EINVAL}, true
	case wire.CmdWrite:
		r := rule{changes: true, ranged: true, pastEnd: syscall.ENOSPC, tooLong: syscall.EINVAL}
		if t.extended {
			r.flags = wire.CmdFlagPayloadLen
		}
		return r, true
	case wire.CmdFlush:
		return rule{}, true
	case wire.CmdTrim:
		return rule{changes: true, ranged: true, pastEnd: syscall.EINVAL}, e.device.trimmer != nil
	case wire.CmdCache: // without SEND_CACHE, too: there are clients that do not look
		return rule{ranged: true, pastEnd: syscall.EINVAL}, true
	case wire.CmdWriteZeroes:
		r := rule{flags: wire.CmdFlagNoHole, changes: true, ranged: true, pastEnd: syscall.ENOSPC}
		if e.device.fast != nil {
			r.flags |= wire.CmdFlagFastZero
		}
		return r, true
	case wire.CmdBlockStatus:
		return rule{flags: wire.CmdFlagReqOne, ranged: true, pastEnd: syscall.EINVAL}, t.allocation
	}
	return rule{}, false
}

// payload is how many bytes follow a request's header: those of a WRITE, and with extended headers those of whatever
// says so (spec items 20 and 28).
func (t terms) payload(r wire.Request) uint64 {
	if t.extended && r.Flags&wire.CmdFlagPayloadLen != 0 || !t.extended && r.Type == wire.CmdWrite {
		return r.Length
	}
	return 0
}

// check is the one place where a request is judged before it costs anything: 0, or the errno that its client
// gets (spec items 12, 14, 16, 19 and 20).
func (e *Export) check(r wire.Request, t terms) syscall.Errno {
	rule, known := e.ruleOf(r.Type, t)
	switch {
	case !known:
		return syscall.EINVAL
	case r.Flags&^(rule.flags|wire.CmdFlagFUA) != 0:
		return syscall.EINVAL
	case r.Type == wire.CmdWrite && t.extended && r.Flags&wire.CmdFlagPayloadLen == 0:
		return syscall.EINVAL
	case rule.changes && e.options.ReadOnly:
		return syscall.EPERM
	case e.gate.isShut():
		return syscall.ESHUTDOWN
	case rule.tooLong != 0 && r.Length > wire.MaxPayload:
		return rule.tooLong
	case !rule.ranged && (r.Offset != 0 || r.Length != 0):
		return syscall.EINVAL
	case rule.ranged && !e.inside(r):
		return e.outside(rule.pastEnd)
	case r.Type == wire.CmdBlockStatus && r.Length == 0: // there is no extent that is not empty
		return syscall.EINVAL
	}
	return 0
}

// inside compares without adding, so that nothing overflows (spec item 14). A device only grows, and may have since its
// size was asked, so it is asked again before a request is refused.
func (e *Export) inside(r wire.Request) bool {
	size := e.known.Load()
	if r.Offset <= size && r.Length <= size-r.Offset {
		return true
	}
	now, err := e.size()
	if err != nil {
		return false
	}
	size = uint64(now)
	e.known.Store(size)
	return r.Offset <= size && r.Length <= size-r.Offset
}

// outside is why a request is not inside: the end of the device, of its service, or a failure to tell.
func (e *Export) outside(pastEnd syscall.Errno) syscall.Errno {
	if _, err := e.size(); err != nil {
		return syscall.Errno(wire.Code(err))
	}
	return pastEnd
}
