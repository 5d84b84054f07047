package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"

	"nbdcrypt/pkg/control"
)

const (
	// meterAfter is how long a call may take before a person is told that it goes on.
	meterAfter = time.Second
	// meterEvery is how often a log, which is no terminal, is told.
	meterEvery = 5 * time.Second
	// meterTick is how often the terminal's picture changes.
	meterTick = 200 * time.Millisecond
)

// meter tells a person who waits how far the daemon is: a bar on a terminal, a line now and then elsewhere.
type meter struct {
	out      io.Writer
	terminal bool
	begun    time.Time

	mu    sync.Mutex
	job   control.Job // the last news; without a verb there is none
	bar   *progressbar.ProgressBar
	lines int // printed to what is no terminal
	drawn bool
}

func newMeter(out io.Writer, terminal bool) *meter {
	return &meter{out: out, terminal: terminal, begun: time.Now()}
}

// start lets the meter run; what it returns stops it and wipes what it drew.
func (m *meter) start() (stop func()) {
	ticker, ended, gone := time.NewTicker(meterTick), make(chan struct{}), make(chan struct{})
	go func() {
		defer close(gone)
		for {
			select {
			case now := <-ticker.C:
				m.tick(now)
			case <-ended:
				return
			}
		}
	}()
	return func() {
		ticker.Stop()
		close(ended)
		<-gone
		m.wipe()
	}
}

// news takes note of how a job gets on.
func (m *meter) news(job control.Job) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.job = job
}

func (m *meter) tick(now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	waited := now.Sub(m.begun)
	switch {
	case m.terminal && waited >= meterAfter:
		m.draw(waited)
	case !m.terminal && waited >= time.Duration(m.lines+1)*meterEvery:
		m.lines = int(waited / meterEvery)
		fmt.Fprintln(m.out, m.line(waited))
	}
}

// draw draws a bar where the job's size is known, and words where it isn't.
func (m *meter) draw(waited time.Duration) {
	if m.job.Total <= 0 {
		m.drawn = true
		fmt.Fprintf(m.out, "\r%s\x1b[K", m.line(waited))
		return
	}
	if m.bar == nil {
		m.bar = progressbar.NewOptions64(m.job.Total, progressbar.OptionSetWriter(m.out), progressbar.OptionSetDescription(what(m.job)),
			progressbar.OptionShowBytes(m.job.Unit == "bytes"), progressbar.OptionShowCount(), progressbar.OptionSetWidth(30),
			progressbar.OptionUseIECUnits(true), progressbar.OptionClearOnFinish())
	}
	m.drawn = true
	m.bar.ChangeMax64(m.job.Total)
	_ = m.bar.Set64(min(m.job.Done, m.job.Total)) // what can't be drawn is no reason to fail
}

func (m *meter) wipe() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.drawn {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

func (m *meter) line(waited time.Duration) string {
	if m.job.Verb == "" {
		return fmt.Sprintf("waiting for the daemon, %s so far", waited.Truncate(time.Second))
	}
	if m.job.Total <= 0 && m.job.Unit == "bytes" && m.job.Done > 0 { // a pipe ends where it ends
		return fmt.Sprintf("%s: %s, %s so far", what(m.job), humanSize(m.job.Done), waited.Truncate(time.Second))
	}
	if m.job.Total <= 0 {
		return fmt.Sprintf("%s: %s so far", what(m.job), waited.Truncate(time.Second))
	}
	percent := float64(min(m.job.Done, m.job.Total)) / float64(m.job.Total) * 100
	return fmt.Sprintf("%s: %.0f%%, %s so far", what(m.job), percent, waited.Truncate(time.Second))
}

func what(job control.Job) string { return strings.TrimSpace(job.Verb + " " + job.Resource) }
