package control

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// serveJobs answers the routes of jobs and of check as the daemon does; work is what check starts.
func serveJobs(t *testing.T, jobs *Jobs, work Work) *Client {
	get := func(w http.ResponseWriter, r *http.Request) {
		after, wait, err := Wait(r)
		if err != nil {
			WriteError(w, err)
			return
		}
		job, err := jobs.Get(r.Context(), r.PathValue("job"), after, wait)
		if err != nil {
			WriteError(w, err)
			return
		}
		WriteJSON(w, http.StatusOK, job)
	}
	return New(listen(t, map[string]http.HandlerFunc{
		RouteJobShow: get,
		RouteJobList: func(w http.ResponseWriter, r *http.Request) { WriteJSON(w, http.StatusOK, jobs.List()) },
		RouteJobCancel: func(w http.ResponseWriter, r *http.Request) {
			job, err := jobs.Cancel(r.PathValue("job"))
			if err != nil {
				WriteError(w, err)
				return
			}
			WriteJSON(w, http.StatusOK, job)
		},
		RouteCheck: func(w http.ResponseWriter, r *http.Request) {
			job, err := jobs.Start(Job{Verb: "check", Unit: "blocks", Request: r.Header.Get(HeaderRequest)}, work)
			if err != nil {
				WriteError(w, err)
				return
			}
			WriteJSON(w, http.StatusAccepted, job)
		},
	}))
}

func TestJobIsFollowedToItsResult(t *testing.T) {
	halfSeen := make(chan struct{})
	client := serveJobs(t, NewJobs(8), func(ctx context.Context, progress func(done, total int64)) (any, error) {
		progress(1, 2)
		<-halfSeen
		progress(2, 2)
		return CheckReport{Disks: 3, Blocks: 1<<53 + 1}, nil
	})
	var last Job
	var once sync.Once
	client = client.Watching(func(job Job) {
		if last = job; job.State == JobRunning && job.Done == 1 {
			once.Do(func() { close(halfSeen) })
		}
	})
	report, err := client.Check(context.Background(), "")
	if err != nil || report.Disks != 3 || report.Blocks != 1<<53+1 {
		t.Fatalf("%+v, %v", report, err)
	}
	if last.State != JobDone || last.Done != 2 || last.Total != 2 || last.Unit != "blocks" {
		t.Errorf("last news %+v", last)
	}
	list, err := client.JobList(context.Background())
	if err != nil || len(list) != 1 || list[0].ID != last.ID {
		t.Errorf("%+v, %v", list, err)
	}
}

func TestJobFails(t *testing.T) {
	client := serveJobs(t, NewJobs(8), func(context.Context, func(done, total int64)) (any, error) {
		return nil, refusal.New(refusal.Damaged, "restore it", "layer is torn")
	})
	_, err := client.Check(context.Background(), "")
	wantCode(t, err, refusal.Damaged, "layer is torn", "restore it")
}

func TestInterruptCancelsTheJob(t *testing.T) {
	ctx, interrupt := context.WithCancel(context.Background())
	jobs := NewJobs(8)
	client := serveJobs(t, jobs, func(ctx context.Context, _ func(done, total int64)) (any, error) {
		interrupt()
		<-ctx.Done()
		return nil, ctx.Err()
	})
	_, err := client.Check(ctx, "")
	// The interrupt may come before the call is answered; then nobody knows of the job, and the message says so.
	wantCode(t, err, refusal.Failed, "interrupted")
	if strings.Contains(err.Error(), "was cancelled") && jobs.List()[0].State != JobCancelled {
		t.Errorf("said %q of %+v", err, jobs.List()[0])
	}
}

func TestFollowAfterInterrupt(t *testing.T) {
	for name, c := range map[string]struct {
		work Work
		says string
	}{
		"heeds it": {func(ctx context.Context, _ func(done, total int64)) (any, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}, "check was cancelled"},
		"fails on the way": {func(ctx context.Context, _ func(done, total int64)) (any, error) {
			<-ctx.Done()
			return nil, errors.New("disk full")
		}, "disk full"},
		"has done its work": {func(ctx context.Context, _ func(done, total int64)) (any, error) {
			<-ctx.Done()
			return CheckReport{}, nil
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			jobs := NewJobs(8)
			client := serveJobs(t, jobs, c.work)
			job, err := jobs.Start(Job{Verb: "check"}, c.work)
			if err != nil {
				t.Fatal(err)
			}
			ctx, interrupt := context.WithCancel(context.Background())
			interrupt()
			_, err = client.Follow(ctx, job.ID, func(Job) {})
			if c.says == "" {
				if err != nil {
					t.Fatal(err)
				}
				return
			}
			wantCode(t, err, refusal.Failed, c.says)
		})
	}
}

func TestFollowUnknownJob(t *testing.T) {
	client := serveJobs(t, NewJobs(8), nil)
	_, err := client.Follow(context.Background(), "nope", func(Job) {})
	wantCode(t, err, refusal.NotFound, "nope")
	ctx, interrupt := context.WithCancel(context.Background())
	interrupt()
	_, err = client.Follow(ctx, "nope", func(Job) {})
	wantCode(t, err, refusal.Failed, "could not be stopped")
}

func ends(context.Context, func(done, total int64)) (any, error) { return nil, nil }

func TestJobsSameRequestSameJob(t *testing.T) {
	jobs := NewJobs(8)
	first, _ := jobs.Start(Job{Verb: "check", Request: "r", By: "u"}, ends)
	again, _ := jobs.Start(Job{Verb: "check", Request: "r", By: "u"}, ends)
	other, _ := jobs.Start(Job{Verb: "check", Request: "r", By: "v"}, ends)
	none, _ := jobs.Start(Job{Verb: "check", By: "u"}, ends)
	if first.ID != again.ID {
		t.Error("a repeated call started a second job")
	}
	if other.ID == first.ID || none.ID == first.ID {
		t.Error("another caller's job was given out")
	}
}

func TestJobsForgetTheOldest(t *testing.T) {
	ctx, jobs, release := context.Background(), NewJobs(2), make(chan struct{})
	long, _ := jobs.Start(Job{Verb: "long"}, func(context.Context, func(done, total int64)) (any, error) {
		<-release
		return nil, nil
	})
	var ids []string
	for range 4 {
		job, _ := jobs.Start(Job{Verb: "short"}, ends)
		// A job that ended may be forgotten at once where others ended after it; wait for its end only.
		if got, err := jobs.Get(ctx, job.ID, job.Revision, time.Minute); err != nil || got.State != JobDone {
			t.Fatalf("%+v, %v", got, err)
		}
		ids = append(ids, job.ID)
	}
	for i, id := range ids {
		if _, err := jobs.Get(ctx, id, 0, 0); (err == nil) != (i >= 2) {
			t.Errorf("job %d of 4: %v", i, err)
		}
	}
	if _, err := jobs.Get(ctx, long.ID, 0, 0); err != nil {
		t.Errorf("a running job was forgotten: %v", err)
	}
	close(release)
	if err := jobs.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

func TestJobsGetWaitsNoLonger(t *testing.T) {
	jobs, release := NewJobs(2), make(chan struct{})
	defer close(release)
	job, _ := jobs.Start(Job{}, func(context.Context, func(done, total int64)) (any, error) {
		<-release
		return nil, nil
	})
	if got, err := jobs.Get(context.Background(), job.ID, job.Revision, time.Millisecond); err != nil || got.State != JobRunning {
		t.Errorf("%+v, %v", got, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if got, err := jobs.Get(ctx, job.ID, job.Revision, time.Hour); err != nil || got.State != JobRunning {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestJobsShutdown(t *testing.T) {
	jobs, release := NewJobs(2), make(chan struct{})
	_, _ = jobs.Start(Job{Verb: "delete", Resource: "disk d"}, func(context.Context, func(done, total int64)) (any, error) {
		<-release // a job that must not stop halfway
		return nil, nil
	})
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := jobs.Shutdown(ctx); err == nil || !strings.Contains(err.Error(), "delete disk d") {
		t.Errorf("%v", err)
	}
	_, err := jobs.Start(Job{}, ends)
	wantCode(t, err, refusal.Unreachable, "shutting down")
	close(release)
	if err := jobs.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

// A caller who starts one job after another is refused before they take everything; one that ends makes room.
func TestJobsAreBounded(t *testing.T) {
	jobs, end := NewJobs(4), make(chan struct{})
	work := func(context.Context, func(done, total int64)) (any, error) { <-end; return nil, nil }
	for range maxRunning {
		if _, err := jobs.Start(Job{Verb: "check"}, work); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := jobs.Start(Job{Verb: "check"}, work); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("one more than may run: %v", err)
	}
	end <- struct{}{}
	for running := maxRunning; running == maxRunning; {
		running = 0
		for _, j := range jobs.List() {
			if j.State == JobRunning {
				running++
			}
		}
	}
	if _, err := jobs.Start(Job{Verb: "check"}, work); err != nil {
		t.Errorf("one has ended, and another is refused: %v", err)
	}
	if _, err := jobs.Await(Job{Verb: "attest"}, work); err != nil {
		t.Errorf("one that only waits for what others do: %v", err)
	}
	close(end)
	if err := jobs.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
}
