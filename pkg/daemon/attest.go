package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"nbdcrypt/pkg/attest"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// openAttests is before any key is unwrapped, so that full key memory does not keep traces of keys from being searched for.
func (d *Daemon) openAttests(context.Context) (err error) {
	d.attests, err = attest.NewService()
	return err
}

// attest tells whether the caller waits for the search.
func (c *call) attest() bool { return c.flag(control.QueryAttest) }

// wipe is a call that has the keys of a disk wiped, and the search for their traces that follows.
type wipe struct {
	daemon *Daemon
	call   *call
	disk   string // as people call it
	id     string
	search *attest.Pending // nil where there were no keys
}

// wiping implements volume.Wiping: it hands the marks of the keys to the search.
func (w *wipe) wiping(a *volume.Attachment, keys []volume.LayerKey) {
	w.disk, w.id = a.Project+"/"+a.Name, a.Disk.String()
	plant(keys)
	marks := make([]*attest.Marks, len(keys))
	for i, k := range keys {
		m, err := attest.Mark(k.Layer, k.Schedules)
		if err != nil {
			w.searched(attest.Report{}, err)
			return
		}
		marks[i] = m
	}
	w.search = w.daemon.attests.Search(marks, w.searched)
}

// searched puts what a search has shown where people will see it.
func (w *wipe) searched(r attest.Report, err error) {
	err = w.verdict(r, err)
	w.daemon.record(w.call, "attest", w.id, err)
	if err != nil {
		w.daemon.warn(err.Error() + "; " + refusal.From(err).Hint)
	}
}

// verdict is what is to be said of a search, nil if it has shown that nothing is left.
func (w *wipe) verdict(r attest.Report, err error) error {
	if err != nil {
		return refusal.New(refusal.Failed, "restart the daemon to be sure: its memory goes with it",
			"it could not be shown that nothing of the key of disk %s is left in memory: %w", w.disk, err)
	}
	if r.Found == 0 {
		return nil
	}
	return refusal.New(refusal.Failed, "restart the daemon, whose memory goes with it, and report this",
		"the key of disk %s was wiped, but is still found in memory, at %d places: %s", w.disk, r.Found, strings.Join(regionsOf(r), ", "))
}

func regionsOf(r attest.Report) (names []string) {
	for _, h := range r.Hits {
		if !slices.Contains(names, h.Region) {
			names = append(names, h.Region)
		}
	}
	return names
}

// awaitSearch answers a detach with a job that waits for the search that many of them may share.
func (d *Daemon) awaitSearch(c *call, out control.Detached, w *wipe) (any, error) {
	c.started = true
	about := control.Job{Verb: "attest", Resource: out.Disk, Project: c.project, Unit: "bytes", Request: c.request, By: c.caller.User}
	return d.jobs.Await(about, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		r, err := w.search.Wait(ctx, progress)
		switch {
		case errors.Is(err, attest.ErrStopped):
			return nil, refusal.New(refusal.Unreachable, "nothing: its memory goes with it",
				"disk %s is detached, and its attest was dropped as the daemon is stopping", w.disk)
		case ctx.Err() != nil:
			return nil, refusal.New(refusal.Failed, "the audit log gets what it finds",
				"disk %s is detached, and its attest goes on without you", w.disk)
		case err != nil:
			return nil, w.verdict(r, err)
		}
		out.Attest = attestView(r)
		return out, nil
	})
}

func attestView(r attest.Report) *control.Attest {
	v := &control.Attest{Bytes: r.Bytes, Regions: r.Regions, Unreadable: r.Unreadable, Seconds: r.Seconds, Found: r.Found}
	for _, h := range r.Hits {
		hit := control.AttestHit{What: h.What, Layer: h.Layer, Region: h.Region}
		if h.Address != 0 {
			hit.Address = fmt.Sprintf("%#x", h.Address)
		}
		v.Hits = append(v.Hits, hit)
	}
	return v
}
