package iobench

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strconv"
	"time"

	"nbdcrypt/pkg/process"
)

// done is what a load generator got through.
type done struct {
	bytes, ops int64
	took       time.Duration
}

// patience is how much longer than asked for a load may take. Its end is the end of a server that hangs.
const patience = time.Minute

// fio loads an export with fio's engine for NBD, one thread and connection a job.
func fio(ctx context.Context, c column, uri string, connections int, t turn) (done, error) {
	out, err := run(ctx, t.length+patience, append([]string{"fio"}, fioWords(c, uri, connections, t)...)...)
	if err != nil {
		return done{}, err
	}
	return parseFio(out)
}

// fioWords are fio's arguments. Where offsets are in order, and where each block is written once, every job has a part of the disk to
// itself.
func fioWords(c column, uri string, connections int, t turn) []string {
	size := t.size
	words := []string{"--name=" + c.name, "--ioengine=nbd", "--uri=" + uri, "--rw=" + c.rw, fmt.Sprintf("--bs=%d", c.block),
		fmt.Sprintf("--iodepth=%d", c.depth), "--thread", fmt.Sprintf("--numjobs=%d", connections), "--group_reporting",
		"--eta=never", "--output-format=json", fmt.Sprintf("--runtime=%dms", t.length.Milliseconds())}
	if c.empty || c.large() {
		size = size / int64(connections) / int64(c.block) * int64(c.block)
		words = append(words, fmt.Sprintf("--offset_increment=%d", size))
	}
	words = append(words, fmt.Sprintf("--size=%d", size))
	if !c.empty {
		words = append(words, "--time_based", "--norandommap")
	}
	if c.fsync > 0 {
		words = append(words, "--fsync="+strconv.Itoa(c.fsync))
	}
	return words
}

// fioOutput is what we read of fio's JSON.
type fioOutput struct {
	Jobs []struct {
		Error       int
		Read, Write struct {
			Bytes   int64 `json:"io_bytes"`
			Ops     int64 `json:"total_ios"`
			Runtime int64 `json:"runtime"` // in milliseconds
		}
	}
}

// parseFio reads fio's JSON, before which it may have said other things.
func parseFio(out []byte) (done, error) {
	var parsed fioOutput
	begin := bytes.IndexByte(out, '{')
	if begin < 0 {
		return done{}, fmt.Errorf("fio: no JSON: %s", bytes.TrimSpace(out))
	}
	if err := json.Unmarshal(out[begin:], &parsed); err != nil {
		return done{}, fmt.Errorf("fio: its JSON: %w", err)
	}
	if len(parsed.Jobs) != 1 || parsed.Jobs[0].Error != 0 {
		return done{}, fmt.Errorf("fio: %d jobs, and not one without an error", len(parsed.Jobs))
	}
	job := parsed.Jobs[0]
	d := done{bytes: job.Read.Bytes + job.Write.Bytes, ops: job.Read.Ops + job.Write.Ops,
		took: time.Duration(max(job.Read.Runtime, job.Write.Runtime)) * time.Millisecond}
	if d.ops == 0 || d.took == 0 {
		return done{}, fmt.Errorf("fio: nothing was done")
	}
	return d, nil
}

// run runs a program to its end, for so long at most, and returns its stdout.
func run(ctx context.Context, most time.Duration, words ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, most)
	defer cancel()
	var out, said bytes.Buffer
	cmd := process.Quiet(exec.CommandContext(ctx, words[0], words[1:]...))
	cmd.Stdout, cmd.Stderr = &out, &said
	err := cmd.Run()
	switch {
	case ctx.Err() != nil:
		return nil, fmt.Errorf("%s: not done after %v", words[0], most)
	case err != nil:
		return nil, fmt.Errorf("%s: %w: %s", words[0], err, lastLine(said.Bytes()))
	}
	return out.Bytes(), nil
}

// lastLine is the last line that says anything, which is where most programs say why they end.
func lastLine(text []byte) []byte {
	text = bytes.TrimSpace(text)
	return text[bytes.LastIndexByte(text, '\n')+1:]
}
