package nbd

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// maxOptions in one session: enough to ask about every export of a full server, not enough to keep it busy.
	maxOptions = 1024
	// maxOptionData is the longest INFO or GO that means anything: a name and every information request there is.
	maxOptionData = 4 + wire.MaxString + 2 + 2*65535
)

var errTooManyOptions = errors.New("nbd: too many options in one handshake")

// option is one option of a handshake, with its data still to be read.
type option struct {
	conn *conn
	wire.Option
}

// handshake is fixed newstyle (spec items 1 to 11). It returns the export that the client has opened and joined, or
// nil where the session ends in good order without one.
func (c *conn) handshake(ctx context.Context) (*Export, error) {
	c.limit(time.Now().Add(c.server.handshakeTime))
	ctx, cancel := context.WithTimeout(ctx, c.server.handshakeTime)
	defer cancel()
	if err := c.greet(); err != nil {
		return nil, err
	}
	for range maxOptions {
		opt, err := c.readOption()
		if err != nil {
			return nil, err
		}
		export, done, err := c.answer(ctx, opt)
		if done || err != nil {
			return export, err
		}
	}
	return nil, errTooManyOptions
}

// greet sends the server's flags and judges the client's: one that is unknown or was not offered ends the session
// (spec item 1).
func (c *conn) greet() error {
	const offered = wire.FlagFixedNewstyle | wire.FlagNoZeroes
	hello := binary.BigEndian.AppendUint64(nil, wire.MagicOldstyle)
	hello = binary.BigEndian.AppendUint64(hello, wire.MagicOption)
	hello = binary.BigEndian.AppendUint16(hello, offered)
	if _, err := c.nc.Write(hello); err != nil {
		return fmt.Errorf("nbd: greeting: %w", err)
	}
	var answer [4]byte
	if err := c.in.read(answer[:]); err != nil {
		return fmt.Errorf("nbd: client flags: %w", err)
	}
	flags := binary.BigEndian.Uint32(answer[:])
	if flags&^uint32(offered) != 0 {
		return fmt.Errorf("nbd: client flags %#x were not offered", flags)
	}
	c.noZeroes = flags&uint32(wire.FlagNoZeroes) != 0
	if flags&uint32(wire.FlagFixedNewstyle) == 0 {
		return c.withoutOptions()
	}
	return nil
}

// withoutOptions is for a client that knows no options but EXPORT_NAME: it can't be asked for TLS, nor use it (the protocol's
// "NOTLS mode").
func (c *conn) withoutOptions() error {
	if c.entrance.Force {
		return errors.New("nbd: the client can't do TLS, which is asked for here")
	}
	c.entrance.TLS = nil
	return nil
}

func (c *conn) readOption() (option, error) {
	var head [wire.OptionSize]byte
	if err := c.in.read(head[:]); err != nil {
		return option{}, fmt.Errorf("nbd: option: %w", err)
	}
	opt, ok := wire.DecodeOption(&head)
	if !ok {
		return option{}, errors.New("nbd: option: wrong magic number")
	}
	return option{c, opt}, nil
}

// answer deals with one option; done ends the handshake. EXPORT_NAME has no error reply: where it is barred the session
// ends (spec item 4).
func (c *conn) answer(ctx context.Context, opt option) (export *Export, done bool, err error) {
	if kind := c.barred(opt.ID); kind != 0 {
		if opt.ID == wire.OptExportName {
			return nil, true, nil
		}
		return nil, false, opt.refuse(kind, reason(kind))
	}
	switch opt.ID {
	case wire.OptExportName:
		export, err = opt.exportName(ctx)
		return export, true, err
	case wire.OptAbort:
		return nil, true, opt.abort()
	case wire.OptList:
		return nil, false, opt.list(ctx)
	case wire.OptStartTLS:
		return nil, false, opt.startTLS(ctx)
	case wire.OptInfo:
		return nil, false, opt.info(ctx)
	case wire.OptGo:
		export, err = opt.open(ctx)
		return export, export != nil, err
	case wire.OptStructuredReply:
		return nil, false, opt.structuredReply()
	case wire.OptListMeta:
		return nil, false, opt.listMeta(ctx)
	case wire.OptSetMeta:
		return nil, false, opt.setMeta(ctx)
	case wire.OptExtendedHeaders:
		return nil, false, opt.extendedHeaders()
	}
	return nil, false, opt.refuse(wire.RepErrUnsup, "option is not supported")
}

// barred is the error that an option gets whatever it asks, 0 for none. TLS comes first where it is forced (spec item 10);
// during shutdown all but ABORT is refused (spec item 9).
func (c *conn) barred(id uint32) uint32 {
	switch {
	case id == wire.OptAbort:
		return 0
	case c.entrance.Force && !c.secure && id != wire.OptStartTLS:
		return wire.RepErrTLSReqd
	case c.server.quiet.Load():
		return wire.RepErrShutdown
	}
	return 0
}
