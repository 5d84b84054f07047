package cli

import (
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func TestMeterInALog(t *testing.T) {
	var out strings.Builder
	m := newMeter(&out, false)
	at := func(seconds float64) { m.tick(m.begun.Add(time.Duration(seconds * float64(time.Second)))) }
	at(0.5)
	at(4.9)
	if out.Len() != 0 {
		t.Errorf("told too early: %q", &out)
	}
	at(5)
	at(5.2)
	m.news(control.Job{Verb: "check", Resource: "disk d", Total: 200, Done: 50, Unit: "blocks"})
	at(17)
	at(19.9)
	m.news(control.Job{Verb: "delete", Resource: "disk d"})
	at(20)
	m.news(control.Job{Verb: "image create", Resource: "piped", Done: 3 << 30, Unit: "bytes"})
	at(25)
	want := "waiting for the daemon, 5s so far\ncheck disk d: 25%, 17s so far\ndelete disk d: 20s so far\nimage create piped: 3 GiB, 25s so far\n"
	if out.String() != want {
		t.Errorf("%q, want %q", &out, want)
	}
	m.wipe()
	if out.String() != want {
		t.Error("a log was wiped")
	}
}

func TestMeterOnATerminal(t *testing.T) {
	var out strings.Builder
	m := newMeter(&out, true)
	at := func(seconds float64) { m.tick(m.begun.Add(time.Duration(seconds * float64(time.Second)))) }
	at(0.9)
	m.wipe()
	if out.Len() != 0 {
		t.Errorf("drawn too early: %q", &out)
	}
	at(1)
	if !strings.Contains(out.String(), "waiting for the daemon, 1s") {
		t.Errorf("%q", &out)
	}
	m.news(control.Job{Verb: "check", Total: 1 << 20, Done: 1 << 19, Unit: "bytes"})
	out.Reset()
	at(2)
	if !strings.Contains(out.String(), "check") || !strings.Contains(out.String(), "50%") {
		t.Errorf("%q", &out)
	}
	m.news(control.Job{Verb: "check", Total: 1 << 20, Done: 1 << 21, Unit: "bytes"})
	at(3)
	out.Reset()
	m.wipe()
	if out.String() != "\r\x1b[K" {
		t.Errorf("not wiped: %q", &out)
	}
}

// TestMeterStops: what runs by itself draws, and stop leaves an empty line behind as the last thing.
func TestMeterStops(t *testing.T) {
	drawn := &firstWrite{seen: make(chan struct{})}
	m := newMeter(drawn, true)
	m.begun = m.begun.Add(-time.Minute)
	stop := m.start()
	<-drawn.seen
	stop()
	if got := drawn.String(); !strings.HasPrefix(got, "\rwaiting for the daemon, 1m0s") || !strings.HasSuffix(got, "\r\x1b[K") {
		t.Errorf("%q", got)
	}
}

// TestMeterOfACommand: a person, or a log, is told; a script that reads errors from stderr as JSON is not.
func TestMeterOfACommand(t *testing.T) {
	for _, c := range []struct{ json, terminal, told bool }{
		{false, false, true}, {false, true, true}, {true, false, false}, {true, true, true},
	} {
		var out strings.Builder
		cmd := &cobra.Command{}
		cmd.SetErr(&out)
		m := (&app{json: c.json, isTerminal: func(any) bool { return c.terminal }}).meter(cmd)
		m.tick(m.begun.Add(time.Minute))
		if (out.Len() > 0) != c.told || m.terminal != c.terminal {
			t.Errorf("%+v: %q", c, &out)
		}
	}
}

// firstWrite closes seen when something is written.
type firstWrite struct {
	strings.Builder
	seen chan struct{}
}

func (f *firstWrite) Write(p []byte) (int, error) {
	if f.Len() == 0 {
		close(f.seen)
	}
	return f.Builder.Write(p)
}
