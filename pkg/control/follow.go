package control

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"nbdcrypt/pkg/refusal"
)

const (
	// pollWait is how long one question about a job may stay open.
	pollWait = 10 * time.Second
	// cancelWait is how long an interrupted command stays to see its job end.
	cancelWait = 5 * time.Second
)

// await follows the job of a call that was answered with 202, and decodes its result as the call's answer.
func (c *Client) await(ctx context.Context, body []byte, out any) error {
	var job Job
	if err := decode(body, &job); err != nil {
		return err
	}
	c.watch(job)
	job, err := c.Follow(ctx, job.ID, c.watch)
	if err != nil || out == nil {
		return err
	}
	result, err := json.Marshal(job.Result)
	if err != nil {
		return fmt.Errorf("control: reading the result of job %s: %w", job.ID, err)
	}
	return decode(result, out)
}

// Follow tells watch of each news of a job until it ends; how it ended is the error. When ctx ends the job is
// cancelled, and the error says what became of it.
func (c *Client) Follow(ctx context.Context, id string, watch func(Job)) (Job, error) {
	seen := uint64(0)
	for {
		job, err := c.JobShow(ctx, id, seen, pollWait)
		if ctx.Err() != nil {
			return c.abandon(ctx, id)
		}
		if err != nil {
			return job, err
		}
		seen = job.Revision
		watch(job)
		if job.State != JobRunning {
			return job, job.failure()
		}
	}
}

// failure is the error that a job which has ended stands for.
func (j Job) failure() error {
	switch {
	case j.State == JobDone:
		return nil
	case j.Error != nil:
		return j.Error.Refusal()
	}
	return refusal.New(refusal.Failed, "", "%s was %s", j.what(), j.State)
}

func (j Job) what() string {
	if j.Resource == "" {
		return j.Verb
	}
	return j.Verb + " " + j.Resource
}

// abandon cancels a job whose follower was interrupted, and stays for a moment to tell how it ended.
func (c *Client) abandon(ctx context.Context, id string) (Job, error) {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), cancelWait)
	defer stop()
	job, err := c.JobCancel(ctx, id)
	if err != nil {
		return job, refusal.New(refusal.Failed, "it may still run",
			"interrupted, and job %s could not be stopped: %w", id, err)
	}
	for job.State == JobRunning && ctx.Err() == nil {
		if seen, err := c.JobShow(ctx, id, job.Revision, cancelWait); err == nil {
			job = seen
			continue
		}
		break
	}
	switch job.State {
	case JobDone:
		return job, nil
	case JobRunning:
		return job, refusal.New(refusal.Failed, "it ends by itself", "interrupted: %s was told to stop and has not yet", job.what())
	case JobCancelled:
		return job, refusal.New(refusal.Failed, "run the command again to start over", "interrupted: %s was cancelled", job.what())
	}
	return job, job.failure()
}
