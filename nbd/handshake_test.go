package nbd_test

import (
	"bytes"
	"encoding/binary"
	"log/slog"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

const diskSize = 1 << 20

// flagsRW are HAS_FLAGS, SEND_FLUSH, SEND_FUA, SEND_TRIM, SEND_WRITE_ZEROES, CAN_MULTI_CONN, SEND_CACHE, SEND_FAST_ZERO.
const flagsRW = 1<<0 | 1<<2 | 1<<3 | 1<<5 | 1<<6 | 1<<8 | 1<<10 | 1<<11

func disk(name string) *nbd.Export {
	return nbd.NewExport(name, nbdtest.NewMemory(diskSize), nbd.Options{Description: "disk " + name})
}

func one(t testing.TB) *house { t.Helper(); return serve(t, nbdtest.NewExports(disk("vol"))) }

func TestNBD01_UnofferedClientFlagsEndTheSession(t *testing.T) {
	h := one(t)
	for _, flags := range []uint32{4, 1 << 16, 1 << 31, 7} {
		h.connect(t, flags).closed()
	}
	for _, flags := range []uint32{0, 1, 2, 3} {
		h.connect(t, flags).want(optAbort, nil, repAck)
	}
}

func TestNBD02_ZeroesUnlessAskedNot(t *testing.T) {
	h := one(t)
	for _, flags := range []uint32{0, 1, 2, 3} {
		c := h.connect(t, flags)
		c.option(optExportName, []byte("vol"))
		head := c.read(10)
		if binary.BigEndian.Uint64(head) != diskSize || binary.BigEndian.Uint16(head[8:]) != flagsRW {
			t.Fatalf("EXPORT_NAME told %x", head)
		}
		if flags&2 == 0 && !bytes.Equal(c.read(124), make([]byte, 124)) {
			t.Error("the padding is not zero")
		}
		c.lives()
	}
	c := h.connect(t, 1)
	c.want(optGo, ask("vol"), repAck)
	c.lives()
}

func TestNBD03_UnknownOptionsAreSkippedToTheByte(t *testing.T) {
	c := one(t).connect(t, fixedFlags)
	for _, n := range []int{0, 1, 15, 16, 17, 16384, 300_000} {
		c.want(0xbadc0de, bytes.Repeat([]byte("IHAVEOPT"), n)[:n], repErrUnsup)
	}
	for _, id := range []uint32{0, 4, optStartTLS, 12, 1 << 31} {
		c.want(id, nil, repErrUnsup)
	}
	c.want(optGo, ask("vol"), repAck)
	c.lives()
}

func TestNBD04_ExportNameThatFailsEndsTheSession(t *testing.T) {
	h := one(t)
	for _, name := range []string{"other", "vol\x00", "\xff", strings.Repeat("v", 4097)} {
		c := h.connect(t, fixedFlags)
		c.option(optExportName, []byte(name))
		c.closed()
	}
}

func TestNBD05_AbortIsAcknowledged(t *testing.T) {
	h := one(t)
	c := h.connect(t, fixedFlags)
	c.want(optAbort, nil, repAck)
	c.closed()
	c = h.connect(t, fixedFlags)
	c.want(optAbort, []byte("data"), repAck)
	c.closed()
	c = h.connect(t, fixedFlags)
	c.option(optAbort, nil)
	c.nc.Close()
	h.connect(t, fixedFlags).want(optAbort, nil, repAck)
}

func TestNBD06_ListTellsWhatTheCallerMayOpen(t *testing.T) {
	exports := nbdtest.NewExports(disk("a"), disk("secret"), disk("p/b"))
	exports.Denied["secret"] = true
	c := serve(t, exports).connect(t, fixedFlags)
	var listed []optReply
	c.option(optList, nil)
	if last := c.replies(optList, &listed); last.kind != repAck {
		t.Fatalf("LIST: %#x", last.kind)
	}
	var names []string
	for _, r := range listed {
		n := binary.BigEndian.Uint32(r.data)
		names = append(names, string(r.data[4:4+n]))
		if r.kind != repServer || string(r.data[4+n:]) != "for tests" {
			t.Errorf("LIST reply %#x %q", r.kind, r.data)
		}
	}
	if !slices.Equal(names, []string{"a", "p/b"}) {
		t.Errorf("listed %q", names)
	}
	for _, id := range []uint32{optList, optStartTLS, optStructured, optExtended} {
		c.want(id, []byte("data"), repErrInvalid)
	}
	// What may not be opened looks like what does not exist, to the last word.
	c.option(optGo, ask("secret"))
	denied := c.reply(optGo)
	c.option(optGo, ask("nothing"))
	unknown := c.reply(optGo)
	if denied.kind != repErrUnknown || unknown.kind != repErrUnknown || !bytes.Equal(denied.data, unknown.data) {
		t.Errorf("denied %#x %q, unknown %#x %q", denied.kind, denied.data, unknown.kind, unknown.data)
	}
	c.want(optList, nil, repAck)
}

func TestNBD07_InfoAndGo(t *testing.T) {
	c := one(t).connect(t, fixedFlags)
	lie := ask("vol")
	binary.BigEndian.PutUint32(lie, 4)
	huge := ask("vol")
	binary.BigEndian.PutUint32(huge, 1<<32-1)
	for _, bad := range [][]byte{
		nil, {0}, make([]byte, 5), lie, huge, {0, 0, 0, 4, 'v', 'o', 'l', 'a', 'b'}, {0, 0, 0, 4, 'v', 'o', 'l', 'a'},
		append(ask("vol"), 0), append(ask("vol", 3), 0, 3), ask("vol", 3)[:10],
	} {
		c.want(optInfo, bad, repErrInvalid)
		c.want(optGo, bad, repErrInvalid)
	}
	c.want(optInfo, ask("other"), repErrUnknown)
	c.want(optGo, ask("other"), repErrUnknown)
}

func TestNBD07_InfoAndGoTellTheSame(t *testing.T) {
	h := one(t)
	for _, wants := range [][]uint16{nil, {1}, {3}, {2, 1, 3}, {0, 77, 0xffff, 3}} {
		told := map[uint32][]optReply{}
		c := h.connect(t, fixedFlags)
		for _, id := range []uint32{optInfo, optGo} {
			var infos []optReply
			c.option(id, ask("vol", wants...))
			if last := c.replies(id, &infos); last.kind != repAck {
				t.Fatalf("option %d: %#x", id, last.kind)
			}
			told[id] = infos
		}
		same := slices.EqualFunc(told[optInfo], told[optGo], func(a, b optReply) bool { return bytes.Equal(a.data, b.data) })
		if !same || binary.BigEndian.Uint16(told[optGo][0].data) != 0 {
			t.Errorf("asked %v: INFO told %v, GO %v", wants, told[optInfo], told[optGo])
		}
		c.lives()
	}
}

func TestNBD07_InformationIsWhatWasAsked(t *testing.T) {
	c := one(t).connect(t, fixedFlags)
	var infos []optReply
	c.option(optInfo, ask("", 1, 2, 3))
	c.replies(optInfo, &infos)
	size := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint64([]byte{0, 0}, diskSize), flagsRW)
	want := [][]byte{size, []byte("\x00\x01vol"), []byte("\x00\x02disk vol"), {0, 3, 0, 0, 2, 0, 0, 0, 16, 0, 2, 0, 0, 0}}
	for i, info := range infos {
		if i >= len(want) || !bytes.Equal(info.data, want[i]) {
			t.Errorf("information %d: %x", i, info.data)
		}
	}
	if len(infos) != len(want) {
		t.Errorf("%d pieces of information", len(infos))
	}
}

func TestNBD08_Strings(t *testing.T) {
	long := strings.Repeat("v", 4096)
	c := serve(t, nbdtest.NewExports(disk(long), disk("é"))).connect(t, fixedFlags)
	c.want(optInfo, ask(long), repAck)
	c.want(optInfo, ask("é"), repAck)
	c.want(optInfo, ask(""), repErrUnknown) // two disks: none is the default
	c.want(optInfo, ask(long+"v"), repErrTooBig)
	c.want(optInfo, ask("a\x00b"), repErrInvalid)
	c.want(optInfo, ask("\xc3"), repErrInvalid)
	c.want(optInfo, make([]byte, 1<<20), repErrTooBig)
	c.want(optInfo, ask(long, make([]uint16, 65535)...), repAck)
}

func TestNBD08_OptionsAreCounted(t *testing.T) {
	server := nbd.NewServer(nbdtest.NewExports(disk("vol")), slog.New(slog.DiscardHandler))
	server.SetHandshakeTime(time.Hour) // so that it is not the clock that ends the session
	c := serveWith(t, server).connect(t, fixedFlags)
	for range nbd.MaxOptions {
		c.want(99, nil, repErrUnsup)
	}
	c.closed()
}

func TestNBD08_HandshakeHasADeadline(t *testing.T) {
	server := nbd.NewServer(nbdtest.NewExports(disk("vol")), slog.New(slog.DiscardHandler))
	server.SetHandshakeTime(150 * time.Millisecond)
	h := serveWith(t, server)
	late := h.connect(t, fixedFlags)
	late.send(optionBytes(99, make([]byte, 100))[:50])
	mute, err := net.Dial("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	in := h.enter(t, "vol")
	late.closed()
	(&raw{t: t, nc: mute.(*net.UnixConn)}).read(18)
	(&raw{t: t, nc: mute.(*net.UnixConn)}).closed()
	in.lives() // who is through has all the time in the world
}

func TestNBD08_ConnectionsAreCounted(t *testing.T) {
	server := nbd.NewServer(nbdtest.NewExports(disk("vol")), slog.New(slog.DiscardHandler))
	server.SetLimits(2, 2)
	h := serveWith(t, server)
	first, second := h.enter(t, "vol"), h.enter(t, "vol")
	third, err := net.Dial("unix", h.path)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	(&raw{t: t, nc: third.(*net.UnixConn)}).closed()
	first.lives()
	second.send(request{command: cmdDisc}.bytes())
	second.closed()
	eventually(t, "there is room again", func() bool {
		nc, err := net.Dial("unix", h.path)
		if err != nil {
			return false
		}
		defer nc.Close()
		n, _ := nc.Read(make([]byte, 18))
		return n == 18
	})
}

func TestNBD08_LongOptionsAreNotBelieved(t *testing.T) {
	h := one(t)
	for _, id := range []uint32{optGo, optInfo, optExportName, optList, optStartTLS, optStructured, optListMeta, optSetMeta, optExtended, 99} {
		c := h.connect(t, fixedFlags)
		head := optionBytes(id, nil)
		binary.BigEndian.PutUint32(head[12:], 1<<32-1)
		c.send(head)
		c.nc.Close()
	}
	h.connect(t, fixedFlags).want(optGo, ask("vol"), repAck)
}

func TestNBD09_ShutdownIsToldInHandshakes(t *testing.T) {
	h := one(t)
	before := h.connect(t, fixedFlags)
	before.want(optInfo, ask("vol"), repAck)
	h.server.Quiesce()
	after := h.connect(t, fixedFlags)
	for _, c := range []*raw{before, after} {
		for _, id := range []uint32{optList, optInfo, optGo, optStartTLS, optStructured, optListMeta, optSetMeta, optExtended, 99} {
			c.want(id, ask("vol"), repErrShutdown)
		}
		c.want(optAbort, nil, repAck)
	}
	c := h.connect(t, fixedFlags)
	c.option(optExportName, []byte("vol"))
	c.closed()
}

func TestNBD09_NothingIsAgreedTwice(t *testing.T) {
	h := one(t)
	c := h.connect(t, fixedFlags)
	c.want(optStructured, nil, repAck)
	c.want(optStructured, nil, repErrInvalid)
	c.want(optExtended, nil, repAck) // more than structured replies, and so after them too
	c.want(optExtended, nil, repErrInvalid)
	c.want(optStructured, nil, repErrExtReqd)
	c = h.connect(t, fixedFlags)
	c.want(optExtended, nil, repAck)
	c.want(optStructured, nil, repErrExtReqd)
	c.option(optExportName, []byte("vol")) // whose answer would be in headers that nobody agreed on
	c.closed()
}

func TestNBD10_WithoutTLS(t *testing.T) {
	c := one(t).connect(t, fixedFlags)
	c.want(optStartTLS, nil, repErrUnsup)
	c.want(optGo, ask("vol"), repAck) // never TLS_REQD
	c.lives()
}

func TestPeerIsTheUser(t *testing.T) {
	h := one(t)
	l, err := net.Listen("unix", h.path+"2")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	out, err := net.Dial("unix", h.path+"2")
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	peer, err := nbd.PeerOf(in)
	if err != nil || peer.UID != uint32(os.Getuid()) || peer.PID != int32(os.Getpid()) {
		t.Errorf("%+v, %v", peer, err)
	}
	nobody, _ := net.Pipe()
	if peer, err := nbd.PeerOf(nobody); err == nil {
		t.Errorf("a pipe is %+v", peer)
	}
}
