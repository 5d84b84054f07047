//go:build vm

package vmtest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/control"
)

// host is a daemon on this machine that can be killed, and the servers that run on its disks, which end with the test.
type host struct {
	t      *testing.T
	dir    string
	flags  []string // of serve
	path   string   // $PATH
	daemon *exec.Cmd
	qemus  map[int]string // of servers that were started: by process, what its command line has
}

// newHost starts a daemon whose project may encrypt, under evs/default and a key "servers".
func newHost(t *testing.T, flags ...string) *host {
	t.Helper()
	h := &host{t: t, dir: t.TempDir(), flags: flags, qemus: map[int]string{}}
	h.qemu("")
	t.Cleanup(h.end)
	h.serve()
	h.do("grant", "create")
	h.do("key", "create", "servers")
	return h
}

func (h *host) command(args ...string) *exec.Cmd {
	cmd := command(h.dir, args...)
	cmd.Env = append(cmd.Env, "PATH="+h.path)
	return cmd
}

// qemu has servers started by a script that first does something. KVM is left out, as in all tests: what a machine's KVM can do is not what they are about.
func (h *host) qemu(first string) {
	h.t.Helper()
	real, err := exec.LookPath("qemu-system-x86_64")
	check(h.t, err)
	dir := h.t.TempDir()
	script := fmt.Sprintf("#!/bin/sh\ncase \"$*\" in *'-accel kvm'*) echo 'no KVM here' >&2; exit 1 ;; esac\n%s\nexec %s \"$@\"\n", first, real)
	check(h.t, os.WriteFile(dir+"/qemu-system-x86_64", []byte(script), 0o755))
	h.path = dir + ":" + os.Getenv("PATH")
}

// serve starts the daemon, and waits until it accepts.
func (h *host) serve() {
	h.t.Helper()
	h.daemon = h.command(append([]string{"serve"}, h.flags...)...)
	log, err := os.OpenFile(h.dir+"/log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	check(h.t, err)
	defer log.Close()
	h.daemon.Stderr = log
	out, err := h.daemon.StdoutPipe()
	check(h.t, err)
	check(h.t, h.daemon.Start())
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.HasPrefix(line, "ready ") {
		h.t.Fatalf("the daemon does not come up: it said %q, %v", line, err)
	}
}

// kill is kill -9 for the daemon.
func (h *host) kill() {
	h.t.Helper()
	check(h.t, h.daemon.Process.Kill())
	_ = h.daemon.Wait()
}

// end kills what still runs of servers, and stops the daemon.
func (h *host) end() {
	if h.t.Failed() {
		list, _ := h.command("server", "list", "--json").CombinedOutput()
		h.t.Logf("servers:\n%s", list)
	}
	for pid, id := range h.qemus {
		if line, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil && bytes.Contains(line, []byte(id)) {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
	_ = h.daemon.Process.Signal(syscall.SIGTERM)
	if err := h.daemon.Wait(); err != nil || h.t.Failed() {
		said, _ := os.ReadFile(h.dir + "/log")
		h.t.Logf("the daemon ended: %v; it said:\n%s", err, said)
	}
}

// do runs a command that must succeed.
func (h *host) do(args ...string) string {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	if err != nil {
		h.t.Fatalf("nbdcrypt %q: %v\n%s", args, err, out)
	}
	return string(out)
}

// ask runs a command whose result is a T.
func ask[T any](h *host, args ...string) (answer T) {
	h.t.Helper()
	cmd := h.command(append(args, "--json")...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &answer)
	}
	if err != nil {
		h.t.Fatalf("nbdcrypt %q: %v\n%s%s", args, err, out, complaint.Bytes())
	}
	return answer
}

// refused runs a command that must end with a code, and say some words.
func (h *host) refused(code int, words []string, args ...string) {
	h.t.Helper()
	out, err := h.command(args...).CombinedOutput()
	h.wantRefusal(out, err, code, words, args)
}

func (h *host) wantRefusal(out []byte, err error, code int, words []string, args []string) {
	h.t.Helper()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != code {
		h.t.Fatalf("nbdcrypt %q ended with %v, not with exit code %d\n%s", args, err, code, out)
	}
	for _, word := range words {
		if !bytes.Contains(out, []byte(word)) {
			h.t.Errorf("nbdcrypt %q does not say %q:\n%s", args, word, out)
		}
	}
}

func (h *host) server(name string) control.Server {
	h.t.Helper()
	return ask[control.Server](h, "server", "show", name)
}

// start starts servers, and returns them as they run.
func (h *host) start(names ...string) (servers []control.Server) {
	h.t.Helper()
	h.do(append([]string{"server", "start"}, names...)...)
	return h.run(names...)
}

// run notes servers that run.
func (h *host) run(names ...string) (servers []control.Server) {
	h.t.Helper()
	for _, name := range names {
		s := h.server(name)
		if s.Status != control.ServerRunning || s.PID == 0 {
			h.t.Fatalf("server %s is %s: %+v", name, s.Status, s)
		}
		h.qemus[s.PID] = s.ID
		servers = append(servers, s)
	}
	return servers
}

// stopped waits until a server has ended by itself, and wants its disks detached.
func (h *host) stopped(name string) control.Server {
	h.t.Helper()
	until(h.t, "server "+name+" is stopped", func() bool { return h.server(name).Status == control.ServerStopped })
	h.detached(name)
	return h.server(name)
}

// detached wants no disk of a server attached.
func (h *host) detached(name string) {
	h.t.Helper()
	s := h.server(name)
	if s.Status != control.ServerStopped {
		h.t.Errorf("server %s is %s", name, s.Status)
	}
	for _, d := range s.Disks {
		disk := ask[control.Disk](h, "disk", "show", d.Name)
		if disk.Status != "available" || len(disk.Attachments) > 0 {
			h.t.Errorf("disk %s is %s, with %d attachments", d.Name, disk.Status, len(disk.Attachments))
		}
	}
}

// runnerOf is the process that runs a server's QEMU.
func runnerOf(t *testing.T, qemu int) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", qemu))
	check(t, err)
	_, after, _ := strings.Cut(string(status), "\nPPid:")
	line, _, _ := strings.Cut(after, "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(line))
	check(t, err)
	return pid
}
