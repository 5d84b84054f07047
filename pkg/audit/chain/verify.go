package chain

import (
	"context"
	"errors"
	"io"
)

// progressEvery is after how many records Verify tells how far it is.
const progressEvery = 1 << 12

// Verify reads a log to its end, every field of every record, and holds it against its witnesses. What follows the last line feed is
// in the End that it returns.
func Verify(ctx context.Context, r io.Reader, genesis string, w *Witnesses, progress func(done int64)) (End, error) {
	end := Begin(genesis)
	err := end.Walk(r, func(e Entry) error {
		if e.Seq%progressEvery == 0 {
			progress(e.At)
		}
		if _, err := Parse(e.Line); err != nil {
			return Damage(e.Seq, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return w.Visit(e.Link)
	})
	if err != nil {
		return end, err
	}
	return end, w.End(end.Head)
}

// TornError is the refusal of a log that ends inside of a line.
func (e *End) TornError() error {
	if len(e.Torn) == 0 {
		return nil
	}
	return Damage(e.Head.Seq+1, errors.New("it has no end"))
}
