package load

import (
	"errors"
	"fmt"
	"io"
	"sync"
)

// Run lets the workers change the target until one fails, or each has made that many changes (0: no end). What is durable is said on out, a line
// at a time, as soon as it is; the worker that says it goes on when it has been heard.
func Run(p Plan, name string, changes uint64, out io.Writer) error {
	var all sync.WaitGroup
	said := &lines{to: out}
	errs := make([]error, p.Workers)
	for i := range p.Workers {
		all.Go(func() { errs[i] = p.work(i, name, changes, said) })
	}
	all.Wait()
	return errors.Join(errs...)
}

func (p Plan) work(worker int, name string, changes uint64, said *lines) (err error) {
	t, err := open(name)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer func() { err = errors.Join(err, t.Close()) }()
	for number := uint64(1); number <= changes || changes == 0; number++ {
		c := p.change(worker, number)
		if err := p.do(t, worker, number, c); err != nil {
			return fmt.Errorf("load: worker %d, change %d: %w", worker, number, err)
		}
		if c.kind == durable {
			if err := said.say(Line(worker, number, true)); err != nil {
				return err
			}
		}
		if !c.flush {
			continue
		}
		if err := t.Flush(); err != nil {
			return fmt.Errorf("load: worker %d, flush after change %d: %w", worker, number, err)
		}
		if err := said.say(Line(worker, number, false)); err != nil {
			return err
		}
	}
	return nil
}

func (p Plan) do(t target, worker int, number uint64, c change) (err error) {
	at, n := p.at(worker, c.first), int64(c.n)*Sector
	switch c.kind {
	case zero, reserve:
		err = t.Zero(at, n, c.kind == reserve)
	case durable:
		_, err = t.WriteAtFUA(p.content(worker, number, c.first, c.n), at)
	default:
		_, err = t.WriteAt(p.content(worker, number, c.first, c.n), at)
	}
	return err
}
