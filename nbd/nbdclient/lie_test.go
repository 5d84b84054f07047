package nbdclient

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"syscall"
	"testing"

	"nbdcrypt/nbd/internal/wire"
)

// script is a server that says a fixed thing.
type script struct {
	*bytes.Reader
}

func (script) Write(p []byte) (int, error) { return len(p), nil }

func hello() []byte {
	b := binary.BigEndian.AppendUint64(nil, wire.MagicOldstyle)
	b = binary.BigEndian.AppendUint64(b, wire.MagicOption)
	return binary.BigEndian.AppendUint16(b, 3)
}

func exportInfo(size uint64) []byte {
	b := binary.BigEndian.AppendUint64([]byte{0, 0}, size)
	return binary.BigEndian.AppendUint16(b, wire.HasFlags)
}

func blockInfo() []byte {
	b := binary.BigEndian.AppendUint32([]byte{0, 3}, 512)
	b = binary.BigEndian.AppendUint32(b, 4096)
	return binary.BigEndian.AppendUint32(b, 1<<25)
}

func honest() []byte {
	b := wire.AppendOptionReply(hello(), wire.OptGo, wire.RepInfo, exportInfo(1<<20))
	b = wire.AppendOptionReply(b, wire.OptGo, wire.RepInfo, blockInfo())
	return wire.AppendOptionReply(b, wire.OptGo, wire.RepAck, nil)
}

// lies are handshakes that must be refused, by name.
func lies() map[string][]byte {
	long := wire.AppendOptionReply(hello(), wire.OptGo, wire.RepInfo, nil)
	binary.BigEndian.PutUint32(long[len(long)-4:], 1<<32-1)
	endless := hello()
	for range maxReplies + 1 {
		endless = wire.AppendOptionReply(endless, wire.OptGo, wire.RepInfo, exportInfo(1))
	}
	return map[string][]byte{
		"nothing":        {},
		"old style":      append(binary.BigEndian.AppendUint64(nil, wire.MagicOldstyle), make([]byte, 10)...),
		"no size":        wire.AppendOptionReply(hello(), wire.OptGo, wire.RepAck, nil),
		"huge size":      wire.AppendOptionReply(hello(), wire.OptGo, wire.RepInfo, exportInfo(1<<63)),
		"huge reply":     long,
		"other option":   wire.AppendOptionReply(hello(), wire.OptList, wire.RepAck, nil),
		"short info":     wire.AppendOptionReply(hello(), wire.OptGo, wire.RepInfo, []byte{0}),
		"cut info":       wire.AppendOptionReply(hello(), wire.OptGo, wire.RepInfo, []byte{0, 0, 1}),
		"never an ack":   append(endless, honest()...),
		"refused":        wire.AppendOptionReply(hello(), wire.OptGo, wire.RepErrUnknown, []byte("no")),
		"ends in middle": honest()[:30],
	}
}

func TestHandshakeLies(t *testing.T) {
	for name, said := range lies() {
		if info, err := Handshake(script{bytes.NewReader(said)}, "x"); err == nil {
			t.Errorf("%s: believed %+v", name, info)
		}
	}
	info, err := Handshake(script{bytes.NewReader(honest())}, "x")
	if err != nil || info != (Info{1 << 20, wire.HasFlags, 512, 4096, 1 << 25}) {
		t.Errorf("an honest server: %+v, %v", info, err)
	}
}

func TestTransmissionLies(t *testing.T) {
	reply := func(magic, code uint32, cookie uint64) []byte {
		var b [wire.ReplySize]byte
		wire.PutReply(&b, wire.Reply{Error: code, Cookie: cookie})
		binary.BigEndian.PutUint32(b[:], magic)
		return b[:]
	}
	for name, said := range map[string][]byte{
		"wrong magic":    reply(1, 0, 1),
		"unknown cookie": reply(wire.MagicReply, 0, 99),
		"data cut short": reply(wire.MagicReply, 0, 1),
		"nothing":        {},
	} {
		ours, theirs := net.Pipe()
		c := &Client{nc: ours, pending: make(map[uint64]*call), done: make(chan struct{})}
		go c.receive()
		go func() {
			io.ReadFull(theirs, make([]byte, wire.RequestSize))
			theirs.Write(said)
			theirs.Close()
		}()
		var errno syscall.Errno
		if _, err := c.ReadAt(make([]byte, 512), 0); err == nil || errors.As(err, &errno) {
			t.Errorf("%s: got %v", name, err)
		}
		<-c.done
	}
}

func FuzzHandshake(f *testing.F) {
	seeds := 0
	for _, said := range lies() {
		f.Add(said)
		seeds++
	}
	f.Add(honest())
	if seeds == 0 {
		f.Fatal("no seeds")
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		info, err := Handshake(script{bytes.NewReader(said)}, "x")
		if err == nil && info.Size < 0 {
			t.Errorf("believed %+v", info)
		}
	})
}

// TestNothingIsAllocatedFromALie: four gigabytes are claimed, a few kilobytes may be used.
func TestNothingIsAllocatedFromALie(t *testing.T) {
	said := lies()["huge reply"]
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := Handshake(script{bytes.NewReader(said)}, "x"); err == nil {
		t.Error("believed")
	}
	runtime.ReadMemStats(&after)
	if used := after.TotalAlloc - before.TotalAlloc; used > 1<<20 {
		t.Errorf("%d bytes were allocated", used)
	}
}

func FuzzParseURI(f *testing.F) {
	seeds := []string{"nbd+unix:///disk?socket=/run/nbd.sock", "nbd+unix:///p/d?socket=/s", "nbd+unix:///?socket=/s",
		"nbd://host/disk", "nbd+unix:///%zz?socket=/s", "nbd+unix:///a?socket="}
	good := 0
	for _, s := range seeds {
		f.Add(s)
		if _, err := ParseURI(s); err == nil {
			good++
		}
	}
	if good != 3 {
		f.Fatalf("%d of the seeds are good, not 3", good)
	}
	f.Fuzz(func(t *testing.T, uri string) {
		if target, err := ParseURI(uri); err == nil && target.Socket == "" {
			t.Error("no socket")
		}
	})
}
