package cli

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// atOnce is how many servers are started or stopped at a time.
const atOnce = 4

// did is what came of one of several names.
type did[T any] struct {
	name  string
	value T
	err   error
}

// each does the same with several names, a few at a time and past those that fail, under one meter. What came of them is in the order of the names.
func each[T any](a *app, cmd *cobra.Command, verb string, names []string, fn func(ctx context.Context, c *control.Client, name string) (T, error)) ([]did[T], error) {
	client, err := a.client()
	if err != nil {
		return nil, err
	}
	m := a.meter(cmd)
	defer m.start()()
	if len(names) == 1 {
		m.news(control.Job{Verb: verb, Resource: names[0]})
		v, err := fn(cmd.Context(), client.Watching(m.news), names[0])
		return []did[T]{{names[0], v, err}}, nil
	}
	out := make([]did[T], len(names))
	var mu sync.Mutex // held to count
	job := control.Job{Verb: verb, Unit: "servers", Total: int64(len(names))}
	m.news(job)
	room := make(chan struct{}, atOnce)
	var all sync.WaitGroup
	for i, name := range names {
		room <- struct{}{}
		all.Go(func() {
			defer func() { <-room }()
			out[i].name = name
			if err := cmd.Context().Err(); err != nil {
				out[i].err = refusal.New(refusal.Failed, "repeat the command for it", "interrupted before its turn")
				return
			}
			out[i].value, out[i].err = fn(cmd.Context(), client, name)
			mu.Lock()
			defer mu.Unlock()
			job.Done++
			m.news(job)
		})
	}
	all.Wait()
	return out, nil
}

// failed is the error that several of which some failed stand for: with the code of the first. What says what they were not.
func failed[T any](all []did[T], what string) error {
	var words []string
	var first *refusal.Error
	for _, d := range all {
		if d.err == nil {
			continue
		}
		r := refusal.From(d.err)
		if first == nil {
			first = r
		}
		words = append(words, d.name+": "+r.Message)
	}
	switch {
	case first == nil:
		return nil
	case len(all) == 1:
		return first
	}
	return refusal.New(first.Code, first.Hint, "%d of %s %s: %s", len(words), count(len(all), "server", "servers"), what, strings.Join(words, "; "))
}

// someServers prints what came of one server, or of several: a line for each, in JSON an array. What failed is the error.
func (a *app) someServers(cmd *cobra.Command, all []did[control.Server], not string, people func(io.Writer, control.Server)) error {
	var done []control.Server
	for _, d := range all {
		a.warn(cmd, d.value.Warnings) // there may be a word to what failed, too
		if d.err == nil {
			d.value.Disks = control.List(d.value.Disks)
			done = append(done, d.value)
		}
	}
	if len(done) == 0 {
		return failed(all, not)
	}
	var v any = control.List(done)
	if len(all) == 1 {
		v = done[0]
	}
	err := a.result(cmd, v, func(w io.Writer) {
		for _, s := range done {
			people(w, s)
		}
	})
	if err != nil {
		return err
	}
	return failed(all, not)
}

// severalNames checks that there is a name, and none twice.
func severalNames(what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usage(cmd, "%s is missing", what)
		}
		seen := map[string]bool{}
		for _, name := range args {
			switch {
			case name == "":
				return usage(cmd, "%s is empty", what)
			case seen[name]:
				return usage(cmd, "%s is named twice", name)
			}
			seen[name] = true
		}
		return nil
	}
}

// isNow prints a line that says what a server is.
func isNow(w io.Writer, s control.Server) { fmt.Fprintf(w, "%s is %s\n", s.Name, s.Status) }
