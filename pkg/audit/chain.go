package audit

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// Head is the end of a chain.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// chain is what reading a log leaves: its head, the highest catalog revision, and how far whole lines go.
type chain struct {
	head     Head
	revision uint64
	size     int64
	torn     []byte
}

// walk reads a log line by line, holds each against the one before, and hands it to visit. A last part without
// a line feed ends up in torn.
func walk(r io.Reader, store uuid.UUID, visit func(Record) error) (c chain, err error) {
	c.head.Hash = genesis(store)
	in := bufio.NewReaderSize(r, maxLine+1)
	for n := 1; ; n++ {
		line, err := in.ReadSlice('\n')
		switch {
		case err == io.EOF:
			c.torn = append(c.torn, line...)
			return c, nil
		case errors.Is(err, bufio.ErrBufferFull):
			return c, lineDamage(n, fmt.Errorf("%w: it is too long", errLine))
		case err != nil:
			return c, fmt.Errorf("audit: read: %w", err)
		}
		rec, err := c.link(line[:len(line)-1])
		if err != nil {
			return c, lineDamage(n, err)
		}
		if err := visit(rec); err != nil {
			return c, err
		}
		c.size += int64(len(line))
	}
}

// link takes one more line into the chain.
func (c *chain) link(line []byte) (Record, error) {
	rec, err := decode(line)
	switch {
	case err != nil:
		return rec, err
	case rec.Seq != c.head.Seq+1:
		return rec, fmt.Errorf("%w: record %d comes after record %d", errLine, rec.Seq, c.head.Seq)
	case rec.Prev != c.head.Hash:
		return rec, fmt.Errorf("%w: record %d does not continue the one before", errLine, rec.Seq)
	}
	c.head = Head{rec.Seq, rec.Hash}
	c.revision = max(c.revision, rec.Catalog)
	return rec, nil
}

func lineDamage(n int, err error) error {
	return refusal.New(refusal.Damaged, "keep the file as evidence, and restore the state directory from a backup",
		"the audit log was altered: line %d: %w", n, err)
}

// Verify reads the log at path and returns its head and how many bytes of an unsynced last line it ends in.
func Verify(ctx context.Context, path string, store uuid.UUID) (Head, int, error) {
	f, err := os.Open(path)
	if err != nil {
		return Head{}, 0, fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	c, err := walk(f, store, func(Record) error { return ctx.Err() })
	return c.head, len(c.torn), err
}
