package nbd_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"
)

// The numbers of the protocol's doc/proto.md, written out: a wrong constant in the server must not agree with itself.
const (
	optExportName = 1
	optAbort      = 2
	optList       = 3
	optStartTLS   = 5
	optInfo       = 6
	optGo         = 7
	optStructured = 8
	optListMeta   = 9
	optSetMeta    = 10
	optExtended   = 11

	repAck         = 1
	repServer      = 2
	repInfo        = 3
	repMeta        = 4
	repErrUnsup    = 1<<31 + 1
	repErrInvalid  = 1<<31 + 3
	repErrTLSReqd  = 1<<31 + 5
	repErrUnknown  = 1<<31 + 6
	repErrShutdown = 1<<31 + 7
	repErrTooBig   = 1<<31 + 9
	repErrExtReqd  = 1<<31 + 10

	cmdRead   = 0
	cmdWrite  = 1
	cmdDisc   = 2
	cmdFlush  = 3
	cmdTrim   = 4
	cmdCache  = 5
	cmdZeroes = 6
	cmdStatus = 7

	flagFUA     = 1
	flagNoHole  = 2
	flagDF      = 4
	flagReqOne  = 8
	flagFast    = 16
	flagPayload = 32
)

const (
	ok         = syscall.Errno(0)
	eperm      = syscall.EPERM
	eio        = syscall.EIO
	enomem     = syscall.ENOMEM
	einval     = syscall.EINVAL
	enospc     = syscall.ENOSPC
	eshutdown  = syscall.ESHUTDOWN
	fixedFlags = 3 // FIXED_NEWSTYLE and NO_ZEROES
)

// raw is a client that says what the test wants, lies included.
type raw struct {
	t    testing.TB
	nc   *net.UnixConn
	over net.Conn // TLS over nc, or nil
}

// conn is where the client speaks.
func (c *raw) conn() net.Conn {
	if c.over != nil {
		return c.over
	}
	return c.nc
}

// connect reads the greeting and answers with flags.
func (h *house) connect(t testing.TB, flags uint32) *raw {
	t.Helper()
	nc, err := net.Dial("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	c := &raw{t: t, nc: nc.(*net.UnixConn)}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(patience))
	hello := c.read(18)
	if string(hello[:16]) != "NBDMAGICIHAVEOPT" || binary.BigEndian.Uint16(hello[16:]) != 3 {
		t.Fatalf("greeting %x", hello)
	}
	c.send(binary.BigEndian.AppendUint32(nil, flags))
	return c
}

// enter goes through the handshake into the transmission phase of an export.
func (h *house) enter(t testing.TB, name string) *raw {
	t.Helper()
	c := h.connect(t, fixedFlags)
	c.option(optGo, ask(name))
	if last := c.replies(optGo); last.kind != repAck {
		t.Fatalf("GO: %#x %q", last.kind, last.data)
	}
	return c
}

func (c *raw) send(b []byte) {
	c.t.Helper()
	if _, err := c.conn().Write(b); err != nil {
		c.t.Fatal(err)
	}
}

func (c *raw) read(n int) []byte {
	c.t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c.conn(), b); err != nil {
		c.t.Fatal(err)
	}
	return b
}

// closed waits for the server to hang up, with nothing more said.
func (c *raw) closed() {
	c.t.Helper()
	n, err := c.conn().Read(make([]byte, 1))
	if n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Fatalf("the server did not hang up: %d bytes, %v", n, err)
	}
}

// ask is the data of INFO and GO.
func ask(name string, wants ...uint16) []byte {
	b := binary.BigEndian.AppendUint32(nil, uint32(len(name)))
	b = append(b, name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(wants)))
	for _, w := range wants {
		b = binary.BigEndian.AppendUint16(b, w)
	}
	return b
}

func optionBytes(id uint32, data []byte) []byte {
	b := append([]byte("IHAVEOPT"), binary.BigEndian.AppendUint32(nil, id)...)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(data))), data...)
}

func (c *raw) option(id uint32, data []byte) { c.t.Helper(); c.send(optionBytes(id, data)) }

type optReply struct {
	kind uint32
	data []byte
}

// reply reads one option reply.
func (c *raw) reply(id uint32) optReply {
	c.t.Helper()
	head := c.read(20)
	if binary.BigEndian.Uint64(head) != 0x3e889045565a9 || binary.BigEndian.Uint32(head[8:]) != id {
		c.t.Fatalf("option reply %x, to option %d", head, id)
	}
	return optReply{binary.BigEndian.Uint32(head[12:]), c.read(int(binary.BigEndian.Uint32(head[16:])))}
}

// replies reads up to the last reply to an option; info counts what came before.
func (c *raw) replies(id uint32, before ...*[]optReply) optReply {
	c.t.Helper()
	for {
		r := c.reply(id)
		if r.kind == repAck || r.kind >= 1<<31 {
			return r
		}
		for _, list := range before {
			*list = append(*list, r)
		}
	}
}

// want sends an option and fails the test unless the last reply is of that kind.
func (c *raw) want(id uint32, data []byte, kind uint32) {
	c.t.Helper()
	c.option(id, data)
	if got := c.replies(id); got.kind != kind {
		c.t.Errorf("option %d of %d bytes: reply %#x %q, want %#x", id, len(data), got.kind, got.data, kind)
	}
}

type request struct {
	flags, command uint16
	cookie, offset uint64
	length         uint32
}

func (r request) bytes(payload ...byte) []byte {
	b := binary.BigEndian.AppendUint32(nil, 0x25609513)
	b = binary.BigEndian.AppendUint16(b, r.flags)
	b = binary.BigEndian.AppendUint16(b, r.command)
	b = binary.BigEndian.AppendUint64(b, r.cookie)
	b = binary.BigEndian.AppendUint64(b, r.offset)
	return append(binary.BigEndian.AppendUint32(b, r.length), payload...)
}

// answered reads one simple reply's header.
func (c *raw) answered() (cookie uint64, errno syscall.Errno) {
	c.t.Helper()
	head := c.read(16)
	if binary.BigEndian.Uint32(head) != 0x67446698 {
		c.t.Fatalf("reply %x", head)
	}
	return binary.BigEndian.Uint64(head[8:]), syscall.Errno(binary.BigEndian.Uint32(head[4:]))
}

// expect reads the reply to one request.
func (c *raw) expect(cookie uint64, want syscall.Errno) {
	c.t.Helper()
	if got, errno := c.answered(); got != cookie || errno != want {
		c.t.Errorf("reply %#x: %d, want %#x: %d", got, errno, cookie, want)
	}
}

// do sends one request and expects its errno; it returns the data of a READ that is served.
func (c *raw) do(r request, want syscall.Errno, payload ...byte) []byte {
	c.t.Helper()
	if r.cookie == 0 {
		r.cookie = 0xfeedfacecafe0000 + uint64(r.command)
	}
	c.send(r.bytes(payload...))
	c.expect(r.cookie, want)
	if want == ok && r.command == cmdRead && !c.t.Failed() {
		return c.read(int(r.length))
	}
	return nil
}

// lives shows that the connection is in step and serves.
func (c *raw) lives() {
	c.t.Helper()
	if got := c.do(request{command: cmdRead, cookie: 0x1122334455667788, length: 16}, ok); len(got) != 16 {
		c.t.Fatal("the connection does not live on")
	}
}

func (c *raw) readBack(off uint64, want []byte) {
	c.t.Helper()
	if got := c.do(request{command: cmdRead, offset: off, length: uint32(len(want))}, ok); !bytes.Equal(got, want) {
		c.t.Errorf("%d bytes at %d read back differently", len(want), off)
	}
}
