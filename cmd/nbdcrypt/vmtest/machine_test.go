//go:build vm

package vmtest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// The harness itself: what a script says and ends with comes back, files go in and out, disks have names, the power can be cut.
func TestMachine(t *testing.T) {
	t.Parallel()
	disk := t.TempDir() + "/disk"
	if err := os.WriteFile(disk, bytes.Repeat([]byte("disk"), 1<<18), 0o600); err != nil {
		t.Fatal(err)
	}
	m := machine.Start(t, machine.Options{Disks: []machine.Disk{{Source: disk, Serial: "first"}},
		Files: []machine.File{{Path: "/etc/more", Mode: 0o600, Content: []byte("more\n")}}})
	if out := m.Run("cat /etc/more; head -c 8 /dev/disk/by-serial/first; nbdcrypt version | head -c 8"); out != "more\ndiskdisknbdcrypt" {
		t.Errorf("it said %q", out)
	}
	if out, code, err := m.Try(t.Context(), "echo out; echo err >&2; sleep 1000 & exit 7"); out != "out\nerr\n" || code != 7 || err != nil {
		t.Errorf("%q, %d, %v", out, code, err)
	}
	content := bytes.Repeat([]byte{0, 1, 0xff, '\n'}, 200_000)
	m.Put("/some/where", content, 0o640)
	if got := m.Get("/some/where"); !bytes.Equal(got, content) || m.Run("stat -c %a /some/where") != "640\n" {
		t.Errorf("%d bytes went in, %d came back", len(content), len(got))
	}
	ctx, cancel := context.WithCancel(t.Context())
	var lines []string
	if _, err := m.Follow(ctx, "while :; do echo again; sleep 0.1; done", func(line string) {
		if lines = append(lines, line); len(lines) == 3 {
			cancel()
		}
	}); !errors.Is(err, context.Canceled) || len(lines) < 3 || lines[2] != "again" {
		t.Errorf("%q, %v", lines, err)
	}
	if status, err := m.QMP("query-status", nil); err != nil || !strings.Contains(string(status), `"running"`) {
		t.Errorf("%s, %v", status, err)
	}
	time.AfterFunc(time.Millisecond, m.Cut)
	if _, _, err := m.Try(t.Context(), "sleep 1000"); err == nil {
		t.Error("a machine without power ran a script")
	}
}
