package chain

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"time"

	"nbdcrypt/pkg/refusal"
)

// Head is the end of a chain.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// End is what walking a log leaves: its head and when that was written, the highest catalog revision, and how far whole lines go.
type End struct {
	Head     Head
	Time     time.Time
	Revision uint64
	Size     int64
	// Torn is what follows the last line feed.
	Torn []byte
}

// Entry is one line, without its line feed, and where in the log it begins. It is lent for the time of a visit.
type Entry struct {
	Link
	Line []byte
	At   int64
}

// Begin is the end of a log without records: its first has to follow genesis. Where that is empty it may follow anything.
func Begin(genesis string) End { return End{Head: Head{Hash: genesis}} }

// Walk reads on from where e ends, line by line, holds each against the one before, and hands it to visit.
func (e *End) Walk(r io.Reader, visit func(Entry) error) error {
	in := bufio.NewReaderSize(r, MaxLine+1)
	linker := newLinker()
	for {
		line, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF:
			e.Torn = append(e.Torn, line...)
			return nil
		case errors.Is(err, bufio.ErrBufferFull):
			return Damage(e.Head.Seq+1, fmt.Errorf("%w: it is too long", errLine))
		case err != nil:
			return fmt.Errorf("audit: read: %w", err)
		}
		link, err := e.take(linker, line[:len(line)-1])
		if err != nil {
			return Damage(e.Head.Seq+1, err)
		}
		if err := visit(Entry{link, line[:len(line)-1], e.Size}); err != nil {
			return err
		}
		e.Size += int64(len(line))
	}
}

// take takes one more line into the chain.
func (e *End) take(linker *linker, line []byte) (Link, error) {
	link, err := linker.link(line)
	switch {
	case err != nil:
		return link, err
	case link.Seq != e.Head.Seq+1:
		return link, fmt.Errorf("%w: record %d comes after record %d", errLine, link.Seq, e.Head.Seq)
	case string(link.Prev) != e.Head.Hash && (e.Head.Seq > 0 || e.Head.Hash != ""):
		return link, fmt.Errorf("%w: record %d does not continue the one before", errLine, link.Seq)
	}
	e.Head, e.Time = Head{link.Seq, string(link.Hash)}, link.Time
	e.Revision = max(e.Revision, link.Catalog)
	return link, nil
}

// Damage is the refusal of a log whose line n is wrong. A line has the number of its record.
func Damage(n uint64, err error) error {
	return refusal.New(refusal.Damaged, Advice,
		"the audit log was altered: line %d: %w", n, err)
}
