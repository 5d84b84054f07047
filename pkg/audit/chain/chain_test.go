package chain

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"
)

// lines makes a log of n records.
func lines(t testing.TB, n int, message string) []byte {
	t.Helper()
	var log []byte
	prev := Genesis(uuid.Nil)
	for i := range n {
		rec := Record{Seq: uint64(i + 1), Time: time.Unix(1e9, int64(i)).UTC(), Verb: "attach", User: `"hash":"`, Message: message, Catalog: uint64(i), Prev: prev}
		line, err := Encode(&rec)
		if err != nil {
			t.Fatal(err)
		}
		log = append(append(log, line...), '\n')
		prev = rec.Hash
	}
	return log
}

// A link says what the whole record says, whatever stands in the strings between.
func TestLinkIsTheRecords(t *testing.T) {
	for _, message := range []string{"", `","hash":"`, `,"catalog":7,"prev":"`, `"}`, "é<\n\\", `\`, `{"seq":9,"time":"`} {
		line := bytes.TrimSuffix(lines(t, 1, message), []byte("\n"))
		link, err := newLinker().link(line)
		rec, errParse := Parse(line)
		if err != nil || errParse != nil {
			t.Fatalf("%q: %v, %v", message, err, errParse)
		}
		if link.Seq != rec.Seq || !link.Time.Equal(rec.Time) || link.Catalog != rec.Catalog || string(link.Prev) != rec.Prev || string(link.Hash) != rec.Hash {
			t.Errorf("%q: the link is %+v, the record %+v", message, link, rec)
		}
		if rec.Message != message {
			t.Errorf("the message is %q", rec.Message)
		}
	}
}

// Going back gives the lines of going forward, whatever the lengths of lines.
func TestBackwardIsForwardBackward(t *testing.T) {
	for _, c := range []struct{ n, message int }{{0, 0}, {1, 10}, {300, 0}, {5, 60 << 10}, {700, 300}, {3, 65080}} {
		log := lines(t, c.n, strings.Repeat("x", c.message))
		var forward, backward []string
		end := Begin("")
		if err := end.Walk(bytes.NewReader(log), func(e Entry) error {
			forward = append(forward, fmt.Sprint(e.At, string(e.Line)))
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		if err := Backward(bytes.NewReader(log), int64(len(log)), func(line []byte, at int64) (bool, error) {
			backward = append([]string{fmt.Sprint(at, string(line))}, backward...)
			return true, nil
		}); err != nil {
			t.Fatal(err)
		}
		if len(forward) != c.n || fmt.Sprint(forward) != fmt.Sprint(backward) {
			t.Errorf("%d lines of %d bytes: forward %d, backward %d", c.n, c.message, len(forward), len(backward))
		}
		seen := 0
		if err := Backward(bytes.NewReader(log), int64(len(log)), func([]byte, int64) (bool, error) { seen++; return false, nil }); err != nil || seen > 1 {
			t.Errorf("one line is wanted, and %d come: %v", seen, err)
		}
	}
	bad := append(lines(t, 2, ""), "no line"...)
	if Backward(bytes.NewReader(bad), int64(len(bad)), func([]byte, int64) (bool, error) { return true, nil }) == nil {
		t.Error("a log without a line feed at its end is read")
	}
	long := append(bytes.Repeat([]byte("x"), 3*MaxLine), '\n')
	if Backward(bytes.NewReader(long), int64(len(long)), func([]byte, int64) (bool, error) { return true, nil }) == nil {
		t.Error("a line that is too long is read")
	}
}

// Without a store the first record may follow anything, and what follows it may not.
func TestGenesisMayBeUnknown(t *testing.T) {
	log := lines(t, 3, "")
	end := Begin("")
	if err := end.Walk(bytes.NewReader(log), func(Entry) error { return nil }); err != nil || end.Head.Seq != 3 {
		t.Errorf("%+v, %v", end.Head, err)
	}
	first := bytes.IndexByte(log, '\n') + 1
	end = Begin("")
	if end.Walk(bytes.NewReader(log[first:]), func(Entry) error { return nil }) == nil {
		t.Error("a log that begins with record 2 is taken")
	}
}

// A line may have the right hash and be no record: only reading every field tells.
func TestVerifyReadsEveryField(t *testing.T) {
	line := bytes.TrimSuffix(lines(t, 1, ""), []byte("\n"))
	bare, _ := bytes.CutSuffix(line, line[len(line)-hashLen-2:])
	bare = bytes.Replace(bare, []byte(`"verb"`), []byte(`"Word"`), 1)
	forged := append(append(append([]byte{}, bare...), hexSum(append(bytes.Clone(bare), `"}`...))...), "\"}\n"...)
	end := Begin("")
	if err := end.Walk(bytes.NewReader(forged), func(Entry) error { return nil }); err != nil {
		t.Fatalf("the forged line has no right hash: %v", err)
	}
	if _, err := Verify(t.Context(), bytes.NewReader(forged), "", NewWitnesses(), func(int64) {}); err == nil {
		t.Error("a record with an unknown field is verified")
	}
}

func FuzzLine(f *testing.F) {
	seed := bytes.TrimSuffix(lines(f, 1, "é<\n"), []byte("\n"))
	if len(seed) == 0 {
		f.Fatal("no seed")
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-1])
	f.Add([]byte(`{"hash":""}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		link, err := newLinker().link(line)
		if err != nil {
			return
		}
		var rec Record
		// A line that is taken has a hash over all of its bytes; where it is a record too, both readers agree.
		if json.Unmarshal(line, &rec) == nil && len(rec.Hash) == hashLen && bytes.HasPrefix(line, seqPart) && rec.Seq != link.Seq {
			t.Errorf("%q is record %d and %d", line, rec.Seq, link.Seq)
		}
	})
}

func FuzzLog(f *testing.F) {
	seed := lines(f, 2, "")
	if len(seed) == 0 {
		f.Fatal("no seed")
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-5])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n, end := uint64(0), Begin(Genesis(uuid.Nil))
		err := end.Walk(&chunks{b}, func(Entry) error { n++; return nil })
		if err == nil && (end.Head.Seq != n || int(end.Size)+len(end.Torn) != len(b)) {
			t.Errorf("%d records, head %d, %d+%d of %d bytes", n, end.Head.Seq, end.Size, len(end.Torn), len(b))
		}
	})
}

// chunks gives few bytes at a time.
type chunks struct{ b []byte }

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 7)], c.b)
	c.b = c.b[n:]
	return n, nil
}
