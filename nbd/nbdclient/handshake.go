package nbdclient

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"syscall"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// maxReply is the longest option reply that is read; a string and its header fit well.
	maxReply = 8 << 10
	// maxReplies to one option: there are four kinds of information, a server may invent some.
	maxReplies = 64
)

// Refused is a server's refusal to open an export. It unwraps to ENOENT, EPERM or ESHUTDOWN where that is what it says.
type Refused struct {
	Code    uint32
	Message string
}

func (r *Refused) Error() string {
	return fmt.Sprintf("nbdclient: the server refused (%#x): %q", r.Code, r.Message)
}

func (r *Refused) Unwrap() error {
	switch r.Code {
	case wire.RepErrUnknown:
		return syscall.ENOENT
	case wire.RepErrPolicy:
		return syscall.EPERM
	case wire.RepErrShutdown:
		return syscall.ESHUTDOWN
	}
	return nil
}

// CanMultiConn is the flag of an export that several connections see alike: what one has flushed, all have.
const CanMultiConn = wire.CanMultiConn

// Info is what a server tells about an export.
type Info struct {
	Size                        int64
	Flags                       uint16
	Minimum, Preferred, Maximum uint32
}

// Handshake opens an export on a connection, up to where requests begin, and reads not one byte further: whoever has the connection may go on with it.
func Handshake(rw io.ReadWriter, export string) (Info, error) {
	if !wire.ValidString([]byte(export)) {
		return Info{}, errors.New("nbdclient: the export's name can't be said in the protocol")
	}
	flags, err := greeting(rw)
	if err != nil {
		return Info{}, err
	}
	hello := binary.BigEndian.AppendUint32(nil, uint32(flags&(wire.FlagFixedNewstyle|wire.FlagNoZeroes)))
	ask := binary.BigEndian.AppendUint32(nil, uint32(len(export)))
	ask = append(ask, export...)
	ask = binary.BigEndian.AppendUint16(ask, 1)
	ask = binary.BigEndian.AppendUint16(ask, wire.InfoBlockSize)
	if _, err := rw.Write(wire.AppendOption(hello, wire.OptGo, ask)); err != nil {
		return Info{}, fmt.Errorf("nbdclient: handshake: %w", err)
	}
	return answers(rw)
}

// greeting returns the server's flags.
func greeting(r io.Reader) (uint16, error) {
	var b [wire.GreetingSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return 0, fmt.Errorf("nbdclient: greeting: %w", err)
	}
	flags := binary.BigEndian.Uint16(b[16:])
	if binary.BigEndian.Uint64(b[:]) != wire.MagicOldstyle || binary.BigEndian.Uint64(b[8:]) != wire.MagicOption ||
		flags&wire.FlagFixedNewstyle == 0 {
		return 0, errors.New("nbdclient: greeting: not a fixed newstyle NBD server")
	}
	return flags, nil
}

// answers reads the replies to GO up to the ACK.
func answers(r io.Reader) (Info, error) {
	info := Info{Size: -1}
	for range maxReplies {
		kind, data, err := answer(r)
		switch {
		case err != nil:
			return Info{}, err
		case kind&wire.RepError != 0:
			return Info{}, &Refused{Code: kind, Message: string(data)}
		case kind == wire.RepAck && info.Size < 0:
			return Info{}, errors.New("nbdclient: the server told no size")
		case kind == wire.RepAck:
			return info, nil
		case kind == wire.RepInfo:
			if err := info.learn(data); err != nil {
				return Info{}, err
			}
		}
	}
	return Info{}, errors.New("nbdclient: the server goes on answering")
}

// answer reads one reply to GO.
func answer(r io.Reader) (uint32, []byte, error) {
	var head [wire.OptionReplySize]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, fmt.Errorf("nbdclient: option reply: %w", err)
	}
	reply, ok := wire.DecodeOptionReply(&head)
	if !ok || reply.ID != wire.OptGo || reply.Length > maxReply {
		return 0, nil, errors.New("nbdclient: option reply: malformed")
	}
	data := make([]byte, reply.Length)
	if _, err := io.ReadFull(r, data); err != nil {
		return 0, nil, fmt.Errorf("nbdclient: option reply: %w", err)
	}
	return reply.Type, data, nil
}

// learn takes one information reply in; kinds that we don't know are passed over.
func (i *Info) learn(data []byte) error {
	if len(data) < 2 {
		return errors.New("nbdclient: information reply: too short")
	}
	switch kind := binary.BigEndian.Uint16(data); {
	case kind == wire.InfoExport && len(data) == wire.InfoExportSize:
		size := binary.BigEndian.Uint64(data[2:])
		if size > math.MaxInt64 {
			return fmt.Errorf("nbdclient: a size of %d bytes", size)
		}
		i.Size, i.Flags = int64(size), binary.BigEndian.Uint16(data[10:])
	case kind == wire.InfoBlockSize && len(data) == wire.InfoBlocksSize:
		i.Minimum = binary.BigEndian.Uint32(data[2:])
		i.Preferred = binary.BigEndian.Uint32(data[6:])
		i.Maximum = binary.BigEndian.Uint32(data[10:])
	case kind == wire.InfoExport, kind == wire.InfoBlockSize:
		return errors.New("nbdclient: information reply: wrong length")
	}
	return nil
}
