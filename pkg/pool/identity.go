package pool

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"
)

// newIdentity names an opening by this boot, this process and a random number.
func newIdentity() (Identity, error) {
	self, err := processOf(os.Getpid())
	if err != nil {
		return "", err
	}
	return Identity(fmt.Sprintf("file %s %s", self, rand.Text())), nil
}

// processOf tells one process from every other that ever ran on this host: boot, pid, and start in clock ticks.
func processOf(pid int) (string, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("pool: who are we: %w", err)
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("pool: who are we: %w", err)
	}
	// The name, field 2, may hold spaces; field 22 (start time, proc_pid_stat(5)) is the 20th after it.
	fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("pool: /proc/%d/stat has %d fields", pid, len(fields))
	}
	return fmt.Sprintf("%s %d %s", strings.TrimSpace(string(boot)), pid, fields[19]), nil
}

// Fence ends an opening of this process at once; one of another process is over when that process is.
func (f *Files) Fence(_ context.Context, id Identity) error {
	f.mu.Lock()
	v := f.open[id]
	f.mu.Unlock()
	if v != nil {
		v.fence()
		return nil
	}
	var boot, start string
	var pid int
	if _, err := fmt.Sscanf(string(id), "file %s %d %s", &boot, &pid, &start); err != nil {
		return fmt.Errorf("pool: fence: %q is no identity of this pool", id)
	}
	if pid == os.Getpid() {
		return nil // it was ours and is closed
	}
	now, err := processOf(pid)
	if err == nil && now == fmt.Sprintf("%s %d %s", boot, pid, start) {
		return fmt.Errorf("%w: process %d still runs; stop it first", ErrInUse, pid)
	}
	return nil
}
