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

// ways are the three in which a client and a server may have agreed to talk.
var ways = map[byte][]byte{
	0: joined(clientFlags(3), optionBytes(optGo, ask("vol"))),
	1: joined(clientFlags(3), optionBytes(optStructured, nil), optionBytes(optSetMeta, askMeta("vol", "base:allocation")), optionBytes(optGo, ask("vol"))),
	2: joined(clientFlags(3), optionBytes(optExtended, nil), optionBytes(optSetMeta, askMeta("vol", "base:allocation")), optionBytes(optGo, ask("vol"))),
}

func transmissionSeeds() (seeds []fuzzed) {
	for _, r := range []struct {
		request
		payload []byte
	}{
		{request{command: cmdRead, cookie: 1, length: 64}, nil},
		{request{command: cmdRead, cookie: 2, length: 60_000}, nil},
		{request{command: cmdRead, cookie: 3, flags: flagDF, length: 9000}, nil},
		{request{command: cmdFlush, cookie: 4}, nil},
		{request{command: cmdWrite, cookie: 5, length: 3, flags: flagFUA}, []byte{1, 2, 3}},
		{request{command: cmdZeroes, cookie: 6, length: 1<<32 - 1}, nil},
		{request{command: cmdZeroes, cookie: 6, flags: flagFast | flagNoHole, length: 8192}, nil},
		{request{command: cmdTrim, cookie: 9, length: 512}, nil},
		{request{command: cmdCache, cookie: 10, length: 512}, nil},
		{request{command: cmdStatus, cookie: 11, flags: flagReqOne, length: 50_000}, nil},
		{request{command: cmdWrite, cookie: 7, offset: 1<<64 - 1, length: 2}, []byte{1, 2}},
		{request{command: 77, cookie: 3, length: 99}, nil},
	} {
		compact := joined(r.bytes(r.payload...), request{command: cmdRead, cookie: 99, length: 5}.bytes(), request{command: cmdDisc}.bytes())
		if r.command == cmdWrite {
			r.flags |= flagPayload
		}
		long := joined(r.bytes64(uint64(r.length), r.payload...), request{command: cmdRead, cookie: 99, length: 5}.bytes64(5), request{command: cmdDisc}.bytes64(0))
		seeds = append(seeds, fuzzed{0, compact}, fuzzed{1, compact}, fuzzed{2, long})
	}
	return seeds
}

// fuzzed is what a client says in one of the ways.
type fuzzed struct {
	way  byte
	said []byte
}

// FuzzTransmission: every answer is well formed and answers a request that was asked, and each request gets one, whose
// last chunk, and no other, says that it is the last. A READ that succeeds brings exactly its bytes.
func FuzzTransmission(f *testing.F) {
	quiet := map[byte]int{}
	for way, prefix := range ways {
		quiet[way] = play(prefix).Len()
	}
	for _, seed := range transmissionSeeds() {
		if play(joined(ways[seed.way], seed.said)).Len() < quiet[seed.way]+32 {
			f.Fatalf("the seed %x gets no two replies in way %d", seed.said, seed.way)
		}
		f.Add(seed.way, seed.said)
	}
	f.Fuzz(func(t *testing.T, way byte, said []byte) {
		way %= 3
		asked, finished := requestsOf(said, way == 2)
		out := play(joined(ways[way], said))
		readN(t, out, quiet[way])
		answers, brought := 0, map[uint64]uint64{}
		for out.Len() > 0 {
			cookie, n, last := answerOf(t, out, way, asked)
			if _, ok := asked[cookie]; !ok {
				t.Fatalf("an answer to %x, which was not asked", cookie)
			}
			brought[cookie] += n
			if last {
				answers++
			}
		}
		if answers != finished {
			t.Errorf("%d requests, %d answers", finished, answers)
		}
		for cookie, n := range brought {
			if len(asked[cookie]) == 1 && n > asked[cookie][0] {
				t.Errorf("%d bytes for %d", n, asked[cookie][0])
			}
		}
	})
}

// answerOf reads a simple reply or a chunk: to which cookie, how many bytes of content, and whether it is the last.
func answerOf(t *testing.T, out *bytes.Reader, way byte, asked map[uint64][]uint64) (cookie, n uint64, last bool) {
	t.Helper()
	head := readN(t, out, 16)
	cookie = binary.BigEndian.Uint64(head[8:])
	switch magic := binary.BigEndian.Uint32(head); {
	case magic == 0x67446698 && way < 2:
		if lengths := asked[cookie]; way == 0 && binary.BigEndian.Uint32(head[4:]) == 0 && len(lengths) > 0 {
			if len(lengths) > 1 {
				readN(t, out, out.Len()) // a cookie used twice: the replies can't be told apart
				t.SkipNow()
			}
			n = lengths[0]
			readN(t, out, int(n))
		}
		return cookie, n, true
	case magic == 0x668e33ef && way == 1:
		head = append(head, readN(t, out, 4)...)
	case magic == 0x6e8a278c && way == 2:
		head = append(head, readN(t, out, 16)...)
	default:
		t.Fatalf("reply %x", head)
	}
	data := readN(t, out, int(binary.BigEndian.Uint32(head[len(head)-4:])))
	switch binary.BigEndian.Uint16(head[6:]) {
	case chunkData:
		n = uint64(len(data) - 8)
	case chunkHole:
		n = uint64(binary.BigEndian.Uint32(data[8:]))
	}
	return cookie, n, binary.BigEndian.Uint16(head[4:])&chunkDone != 0
}

// requestsOf lists the requests in a byte stream: how much content the answers to each cookie have, and how many are
// whole.
func requestsOf(b []byte, extended bool) (asked map[uint64][]uint64, n int) {
	asked = map[uint64][]uint64{}
	size, magic := 28, uint32(0x25609513)
	if extended {
		size, magic = 32, 0x21e41c71
	}
	for len(b) >= size && binary.BigEndian.Uint32(b) == magic {
		flags, command := binary.BigEndian.Uint16(b[4:]), binary.BigEndian.Uint16(b[6:])
		cookie, length := binary.BigEndian.Uint64(b[8:]), uint64(binary.BigEndian.Uint32(b[24:]))
		if extended {
			length = binary.BigEndian.Uint64(b[24:])
		}
		b = b[size:]
		if command == cmdDisc {
			return asked, n
		}
		if !extended && command == cmdWrite || extended && flags&flagPayload != 0 {
			if uint64(len(b)) < length {
				return asked, n
			}
			b = b[length:]
		}
		if command != cmdRead {
			length = 0
		}
		asked[cookie] = append(asked[cookie], length)
		n++
	}
	return asked, n
}
