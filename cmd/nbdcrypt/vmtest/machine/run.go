package machine

import (
	"bytes"
	"context"
	"strings"

	"nbdcrypt/cmd/nbdcrypt/vmtest/wire"
)

// Run runs a script in the guest, by sh -e, and returns what it said. A script that fails ends the test. What it leaves running goes on, and
// writes to the console what it didn't send elsewhere.
func (m *Machine) Run(script string) string {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	out, code, err := m.Try(ctx, script)
	if err != nil || code != 0 {
		m.t.Fatalf("in the guest: exit code %d, error %v\n%s\nit said:\n%s", code, err, script, out)
	}
	return out
}

// Try runs a script and returns what it said, and its exit code. An error means that the machine went off, or that ctx ended: then the script,
// and what it started, is killed.
func (m *Machine) Try(ctx context.Context, script string) (out string, code int, err error) {
	var said bytes.Buffer
	a, err := m.agent.ask(ctx, wire.Request{Op: wire.Run, Script: script}, func(b []byte) { said.Write(b) })
	return said.String(), a.Code, err
}

// Follow runs a script as Try does, and calls line with each line as it comes.
func (m *Machine) Follow(ctx context.Context, script string, line func(string)) (code int, err error) {
	var rest string
	a, err := m.agent.ask(ctx, wire.Request{Op: wire.Run, Script: script}, func(b []byte) {
		lines := strings.Split(rest+string(b), "\n")
		for _, l := range lines[:len(lines)-1] {
			line(l)
		}
		rest = lines[len(lines)-1]
	})
	if rest != "" && err == nil {
		line(rest)
	}
	return a.Code, err
}

// Put makes a file in the guest, and the directories above it.
func (m *Machine) Put(path string, content []byte, mode uint32) {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for first := true; first || len(content) > 0; first = false {
		piece := content[:min(len(content), wire.Piece)]
		content = content[len(piece):]
		if _, err := m.agent.ask(ctx, wire.Request{Op: wire.Put, Path: path, Mode: mode, First: first, Data: piece}, nil); err != nil {
			m.t.Fatalf("putting %s into the guest: %v", path, err)
		}
	}
}

// Get returns what is in a file of the guest.
func (m *Machine) Get(path string) []byte {
	m.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var content bytes.Buffer
	if _, err := m.agent.ask(ctx, wire.Request{Op: wire.Get, Path: path}, func(b []byte) { content.Write(b) }); err != nil {
		m.t.Fatalf("getting %s from the guest: %v", path, err)
	}
	return content.Bytes()
}
