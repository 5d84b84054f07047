package nbd_test

import (
	"bytes"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

// tape is a connection whose client has said everything already; what the server says is kept.
type tape struct {
	net.Conn
	in  *bytes.Reader
	out bytes.Buffer
}

func (p *tape) Read(b []byte) (int, error)         { return p.in.Read(b) }
func (p *tape) Write(b []byte) (int, error)        { return p.out.Write(b) }
func (p *tape) Close() error                       { return nil }
func (p *tape) SetDeadline(t time.Time) error      { return nil }
func (p *tape) SetReadDeadline(t time.Time) error  { return nil }
func (p *tape) SetWriteDeadline(t time.Time) error { return nil }

// play runs a whole connection and returns what the server said.
func play(said []byte) *bytes.Reader {
	server := nbd.NewServer(nbdtest.NewExports(nbd.NewExport("vol", nbdtest.NewMemory(1<<16), nbd.Options{})), slog.New(slog.DiscardHandler))
	p := &tape{in: bytes.NewReader(said)}
	server.Converse(p, nbd.Peer{UID: 1000}, nbd.Entrance{})
	return bytes.NewReader(p.out.Bytes())
}

func clientFlags(flags uint32) []byte { return binary.BigEndian.AppendUint32(nil, flags) }

func joined(parts ...[]byte) []byte { return bytes.Join(parts, nil) }

func handshakeSeeds() [][]byte {
	return [][]byte{
		joined(clientFlags(3), optionBytes(optGo, ask("vol", 1, 2, 3))),
		joined(clientFlags(3), optionBytes(optInfo, ask("")), optionBytes(optList, nil), optionBytes(optAbort, nil)),
		joined(clientFlags(0), optionBytes(optExportName, []byte("vol"))),
		joined(clientFlags(3), optionBytes(optStartTLS, nil), optionBytes(optStructured, nil), optionBytes(99, make([]byte, 40))),
		joined(clientFlags(3), optionBytes(optStructured, nil), optionBytes(optListMeta, askMeta("vol")), optionBytes(optSetMeta, askMeta("", "base:allocation", "x:y")),
			optionBytes(optGo, ask("vol"))),
		joined(clientFlags(3), optionBytes(optExtended, nil), optionBytes(optSetMeta, askMeta("vol", "base:")[:13]), optionBytes(optStructured, nil)),
		joined(clientFlags(3), optionBytes(optExtended, nil), optionBytes(optExportName, []byte("vol"))),
		joined(clientFlags(3), optionBytes(optGo, []byte{0xff, 0xff, 0xff, 0xff, 0, 0}), optionBytes(optGo, ask("nope"))),
	}
}

// FuzzHandshake: whatever a client says before the transmission phase, every answer of the server is well formed.
func FuzzHandshake(f *testing.F) {
	for _, seed := range handshakeSeeds() {
		if play(seed).Len() <= 18 {
			f.Fatalf("the seed %x gets no answer", seed)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		out := play(said)
		if hello := readN(t, out, 18); string(hello[:8]) != "NBDMAGIC" {
			t.Fatalf("greeting %x", hello)
		}
		for out.Len() > 0 {
			head := readN(t, out, 8)
			if binary.BigEndian.Uint64(head) != 0x3e889045565a9 {
				return // the answer to EXPORT_NAME, or the transmission phase
			}
			rest := readN(t, out, 12)
			readN(t, out, int(binary.BigEndian.Uint32(rest[8:])))
		}
	})
}

func readN(t *testing.T, r io.Reader, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(r, b); err != nil {
		t.Fatalf("the server stopped in the middle of an answer: %v", err)
	}
	return b
}

func transmissionSeeds() [][]byte {
	return [][]byte{
		joined(request{command: cmdRead, cookie: 1, length: 64}.bytes(), request{command: cmdFlush, cookie: 2}.bytes()),
		joined(request{command: cmdWrite, cookie: 1, length: 3, flags: flagFUA}.bytes(1, 2, 3), request{command: cmdDisc}.bytes()),
		joined(request{command: cmdZeroes, cookie: 1, length: 1<<32 - 1}.bytes(), request{command: cmdTrim, cookie: 9, length: 512}.bytes()),
		joined(request{command: cmdWrite, cookie: 7, offset: 1<<64 - 1, length: 2}.bytes(1, 2), request{command: 77, cookie: 3, length: 99}.bytes()),
	}
}

// FuzzTransmission: every reply answers a request that was asked, and a READ that succeeds brings exactly its bytes.
func FuzzTransmission(f *testing.F) {
	prefix := joined(clientFlags(3), optionBytes(optGo, ask("vol")))
	quiet := play(prefix).Len()
	for _, seed := range transmissionSeeds() {
		if play(joined(prefix, seed)).Len() < quiet+16 {
			f.Fatalf("the seed %x gets no reply", seed)
		}
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		asked, finished := requestsOf(said)
		out := play(joined(prefix, said))
		readN(t, out, quiet)
		replies := 0
		for ; out.Len() > 0; replies++ {
			head := readN(t, out, 16)
			cookie := binary.BigEndian.Uint64(head[8:])
			lengths, ok := asked[cookie]
			if binary.BigEndian.Uint32(head) != 0x67446698 || !ok {
				t.Fatalf("reply %x to nothing", head)
			}
			if len(lengths) > 1 {
				return // a cookie used twice: the replies can't be told apart here
			}
			if binary.BigEndian.Uint32(head[4:]) == 0 {
				readN(t, out, lengths[0])
			}
		}
		if replies != finished {
			t.Errorf("%d requests, %d replies", finished, replies)
		}
	})
}

// requestsOf lists the requests in a byte stream: how much data the answer to each cookie has, and how many there are.
func requestsOf(b []byte) (asked map[uint64][]int, n int) {
	asked = map[uint64][]int{}
	for len(b) >= 28 && binary.BigEndian.Uint32(b) == 0x25609513 {
		command, length := binary.BigEndian.Uint16(b[6:]), int(binary.BigEndian.Uint32(b[24:]))
		cookie := binary.BigEndian.Uint64(b[8:])
		b = b[28:]
		switch {
		case command == cmdDisc, command == cmdWrite && len(b) < length:
			return asked, n
		case command == cmdWrite:
			b = b[length:]
			length = 0
		case command != cmdRead:
			length = 0
		}
		asked[cookie] = append(asked[cookie], length)
		n++
	}
	return asked, n
}
