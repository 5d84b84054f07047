// Package demo is the guided tour: the main job from nothing to nothing, told step by step with what was checked. It
// runs the real program, as a person would: a daemon of its own in a temporary directory, and one child process for
// each command. Where the tools and the rights are there it mounts a real file system on the disk; otherwise it
// speaks NBD itself, and says so. Whatever happens (a failed check, a panic, Ctrl-C), it leaves nothing behind.
//
// The words that it prints are for people and may change at any time.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strings"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/refusal"
)

const (
	// tourTime bounds the whole tour, so that a daemon that hangs is a failure and not a wait without end. Most of it is for a machine that boots slowly.
	tourTime = 5 * time.Minute
	// cleanTime bounds what is done after it, also after Ctrl-C.
	cleanTime = 40 * time.Second
)

// Options say what the tour is to take.
type Options struct {
	Kernel string // that its server boots; one that is installed where it is empty
}

// Run tells and checks the main job. What it returns is a refusal that says which step failed and why.
func Run(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	// The daemon is told to end with the thread that started it (see pkg/process): this one has to live as long as the tour.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, release := process.HoldSignals(ctx)
	defer release()
	ctx, cancel := context.WithTimeout(ctx, tourTime)
	defer cancel()
	t, err := newTour(stdout, o)
	if err != nil {
		return refusal.From(err)
	}
	err = t.play(ctx, story(len(t.bootable.lacking) == 0))
	if err != nil && ctx.Err() == nil && t.tell.broken == nil {
		t.showLog(stderr)
	}
	// Cleaning up has its own time: ctx may be over.
	after, done := context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
	defer done()
	left := t.clean(after)
	return t.end(ctx, err, left)
}

// step is one step of the story.
type step struct {
	title string
	run   func(context.Context, *tour) error
}

// play runs the steps up to the first that fails.
func (t *tour) play(ctx context.Context, steps []step) error {
	t.tell.opening(t.dir)
	for _, s := range steps {
		t.tell.step(s.title)
		err := t.guarded(ctx, s)
		if err == nil {
			err = t.tell.broken
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return fmt.Errorf("step %d (%s): %w", t.tell.steps, s.title, err)
		}
	}
	return nil
}

// guarded runs one step; a panic is a failure like others, so that the cleaning up happens.
func (t *tour) guarded(ctx context.Context, s step) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return s.run(ctx, t)
}

// end says how it went.
func (t *tour) end(ctx context.Context, failed error, left []string) error {
	if failed == nil && len(left) == 0 {
		t.tell.summary()
		return nil
	}
	for _, what := range left {
		t.tell.wrong("left behind: " + what)
	}
	switch {
	case failed == nil:
		return refusal.New(refusal.Failed, "remove by hand what is listed above", "demo: the tour went well, but not everything could be cleaned up")
	case errors.Is(ctx.Err(), context.Canceled):
		t.tell.note("Interrupted." + nothingLeft(left))
		return refusal.New(refusal.Failed, "", "demo: interrupted")
	case t.tell.broken != nil:
		return refusal.New(refusal.Failed, "", "demo: stopped, because its story can't be told: %w", t.tell.broken)
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return refusal.New(refusal.Failed, "run it again on a machine with less to do", "demo: not done after %v: %w", tourTime, failed)
	}
	t.tell.wrong("this step failed")
	t.tell.note("The tour stops here." + nothingLeft(left))
	return refusal.New(refusal.Failed, "the end of the daemon's log is above; please report this with all of the output", "demo: %w", failed)
}

func nothingLeft(left []string) string {
	if len(left) > 0 {
		return ""
	}
	return " Nothing is left behind."
}

// tour is one run of the demo.
type tour struct {
	tell *teller
	self string // this program
	dir  string // all that is made lies in it

	daemon *process.Process // the one that runs now, or nil
	server *process.Process // what runs the server, or nil
	others []*process.Process

	medium   medium
	bootable bootable
	letters  letters
	uri      string   // of the vault's export
	files    []string // that the vault's data lies in
}

// short is a text with the temporary directory as $D.
func (t *tour) short(text string) string { return strings.ReplaceAll(text, t.dir, "$D") }

func newTour(stdout io.Writer, o Options) (*tour, error) {
	if err := readable(o.Kernel); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("demo: finding this program: %w", err)
	}
	texts, err := newLetters()
	if err != nil {
		return nil, err
	}
	dir, err := process.TempDir(filepath.Join("run", control.SocketControl))
	if err != nil {
		return nil, fmt.Errorf("demo: %w", err)
	}
	return &tour{tell: newTeller(stdout, dir), self: self, dir: dir, letters: texts, medium: chooseMedium(), bootable: findBootable(self, o.Kernel)}, nil
}
