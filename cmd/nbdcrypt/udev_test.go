package main

import (
	"os"
	"strings"
	"testing"
)

// The names that udev gives are of devices that are ours, by the name that attach gives them, and below all others'.
func TestUdevRules(t *testing.T) {
	text, err := os.ReadFile("60-nbdcrypt.rules")
	if err != nil {
		t.Fatal(err)
	}
	rules, last := strings.ReplaceAll(string(text), "\\\n", ""), -1
	for _, want := range []string{`ATTR{backend}=="nbdcrypt:*"`, `ENV{NBDCRYPT_DISK}=="", GOTO="nbdcrypt_end"`, `SYMLINK+="nbdcrypt/$env{NBDCRYPT_DISK}"`, `ENV{UDISKS_IGNORE}="1"`,
		`OPTIONS+="link_priority=-100"`, `LABEL="nbdcrypt_end"`} {
		at := strings.Index(rules, want)
		if at <= last {
			t.Errorf("%s is not there, or comes too early", want)
		}
		last = at
	}
	for line := range strings.Lines(rules) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' && (!strings.Contains(line, "=") || strings.Count(line, `"`)%2 != 0) {
			t.Errorf("no rule: %s", line)
		}
	}
}
