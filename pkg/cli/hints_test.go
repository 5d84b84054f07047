package cli

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// hinted finds the commands that messages tell a person to run; in source they stand between backquotes.
var hinted = regexp.MustCompile("`nbdcrypt ([a-z]+)( [a-z][a-z-]*)?[^`\n]*`")

// Every command that a message of the program names exists, and every flag that stands with it, so that nobody is sent to one that does not.
func TestHintsNameRealCommands(t *testing.T) {
	found := 0
	err := filepath.WalkDir("../..", func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range hinted.FindAllStringSubmatch(string(text), -1) {
			found++
			cmd, rest, err := tree().Find([]string{m[1], strings.TrimSpace(m[2])})
			if err != nil || cmd.Name() == "nbdcrypt" || cmd.HasSubCommands() && len(rest) > 0 && rest[0] != "" {
				t.Errorf("%s: there is no command %s%s", path, m[1], m[2])
				continue
			}
			cmd, _, _ = tree().Find(strings.Fields(strings.Trim(m[0], "`"))[1:]) // a word further
			for _, flag := range flagWord.FindAllString(m[0], -1) {
				if flag != "--help" && cmd.Flag(strings.TrimPrefix(flag, "--")) == nil {
					t.Errorf("%s: %s has no %s: %s", path, cmd.CommandPath(), flag, m[0])
				}
			}
		}
		return err
	})
	if err != nil || found < 20 {
		t.Errorf("%d hints found: %v", found, err)
	}
}
