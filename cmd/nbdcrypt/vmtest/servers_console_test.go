//go:build vm

package vmtest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// patience is how long something may take that takes a moment. Nothing depends on how long it really takes.
const patience = 2 * time.Minute

// bootWord is what is in the servers' image and nowhere else, drawn anew for each run: who says it has read the disk.
var bootWord = sync.OnceValue(func() string {
	word := make([]byte, 16)
	_, _ = rand.Read(word) // it does not fail
	return "word-" + hex.EncodeToString(word)
})

// serverScript says which server it is and what stands on its disk, then does what it reads on the console, a line at a time: a number, which its answer
// ends with, and a command.
const serverScript = `stty -echo
printf '\nserver %s has read %s\n' "$(cat /sys/class/dmi/id/product_serial)" "$(cat /etc/word)"
while read -r number command; do
	eval "$command"
	printf '\nanswer %s ends with %s\n' "$number" $?
done
`

// serverImage is the image that all servers are made of.
func serverImage(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	check(t, machine.ServerImage(path, serverScript, machine.File{Path: "/etc/word", Mode: 0o644, Content: []byte(bootWord() + "\n")}))
	return path
}

// console is a server's, over `server console`.
type console struct {
	t     *testing.T
	in    io.Writer
	ended chan struct{} // closed when the command has ended

	mu   sync.Mutex
	said bytes.Buffer
	more chan struct{} // closed when there is more, or the end
	asks int
}

// openConsole opens the console of a server that runs.
func openConsole(t *testing.T, dir, server string) *console {
	t.Helper()
	cmd := command(dir, "server", "console", server)
	c := &console{t: t, ended: make(chan struct{}), more: make(chan struct{})}
	in, err := cmd.StdinPipe()
	check(t, err)
	c.in, cmd.Stdout, cmd.Stderr = in, c, c
	check(t, cmd.Start())
	go func() {
		if err := cmd.Wait(); err != nil {
			fmt.Fprintf(c, "(server console ended with %v)\n", err)
		}
		close(c.ended)
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		<-c.ended
		if t.Failed() {
			t.Logf("the console of %s:\n%s", server, c.text())
		}
	})
	return c
}

// Write is what the console says.
func (c *console) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	close(c.more)
	c.more = make(chan struct{})
	c.said.Write(bytes.ReplaceAll(b, []byte("\r"), nil))
	return len(b), nil
}

func (c *console) text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.String()
}

// wait waits until the console has said something, and returns its parts.
func (c *console) wait(what *regexp.Regexp) []string {
	c.t.Helper()
	late := time.After(patience)
	for {
		c.mu.Lock()
		more, found := c.more, what.FindStringSubmatch(c.said.String())
		c.mu.Unlock()
		if found != nil {
			return found
		}
		select {
		case <-more:
		case <-c.ended:
			c.t.Fatalf("the console ended before it said %q", what)
		case <-late:
			c.t.Fatalf("the console never said %q", what)
		}
	}
}

// booted waits until the server has said who it is, and from which disk.
func (c *console) booted(server string) {
	c.t.Helper()
	if who := c.wait(regexp.MustCompile(`\nserver (\S*) has read (\S*)\n`)); who[1] != server || who[2] != bootWord() {
		c.t.Fatalf("server %s says that it is %q, and has read %q", server, who[1], who[2])
	}
}

// ask has the server run a command of one line.
func (c *console) ask(command string) (number int) {
	c.t.Helper()
	c.asks++
	if _, err := fmt.Fprintf(c.in, "%d %s\n", c.asks, command); err != nil {
		c.t.Fatal(err)
	}
	return c.asks
}

// answer waits for the end of a command, which must succeed, and returns what it said.
func (c *console) answer(number int) string {
	c.t.Helper()
	before := `has read \S*\n`
	if number > 1 {
		before = fmt.Sprintf(`\nanswer %d ends with \d+\n`, number-1)
	}
	end := c.wait(regexp.MustCompile(fmt.Sprintf(`(?s)%s(.*)\nanswer %d ends with (\d+)\n`, before, number)))
	if end[2] != "0" {
		c.t.Fatalf("command %d ended with %s: %s", number, end[2], end[1])
	}
	return strings.TrimSpace(end[1])
}

func (c *console) run(command string) string {
	c.t.Helper()
	return c.answer(c.ask(command))
}

// gone waits for the end of the server.
func (c *console) gone() {
	c.t.Helper()
	select {
	case <-c.ended:
	case <-time.After(patience):
		c.t.Fatal("the console does not end, though the server should have")
	}
}

// until waits for something that happens in its own time.
func until(t *testing.T, what string, so func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !so(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("it is not so: %s", what)
		}
	}
}

// alive tells whether a process is there that has not ended.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	state := stat[bytes.LastIndexByte(stat, ')')+2:] // the name before it may be any
	return state[0] != 'Z' && state[0] != 'X'
}
