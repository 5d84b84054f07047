package cli

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// walk visits every command that a person can call.
func walk(cmd *cobra.Command, visit func(*cobra.Command)) {
	visit(cmd)
	for _, sub := range cmd.Commands() {
		walk(sub, visit)
	}
}

func tree() *cobra.Command { return (&app{hooks: Hooks{Env: env("/r")}}).root() }

// TestEveryCommandHelps: what it does, how, and an example that the command line understands.
func TestEveryCommandHelps(t *testing.T) {
	seen := 0
	walk(tree(), func(cmd *cobra.Command) {
		seen++
		if cmd.Short == "" || cmd.Long == "" || cmd.Example == "" {
			t.Errorf("%s lacks Short, Long or Example", cmd.CommandPath())
		}
		if strings.HasSuffix(cmd.Short, ".") {
			t.Errorf("%s: Short is a sentence", cmd.CommandPath())
		}
		understood := false
		for _, line := range strings.Split(cmd.Example, "\n") {
			called := understand(t, line)
			understood = understood || called == cmd.CommandPath() || strings.HasPrefix(called, cmd.CommandPath()+" ")
		}
		if !understood {
			t.Errorf("%s: no example is about it", cmd.CommandPath())
		}
		got := try(t, "/r", "", append(strings.Fields(cmd.CommandPath())[1:], "--help")...)
		if got.code != 0 || !strings.Contains(got.out, "Usage:") || !strings.Contains(got.out, cmd.Example) || got.err != "" {
			t.Errorf("%s --help: %+v", cmd.CommandPath(), got)
		}
	})
	if seen < 25 {
		t.Errorf("only %d commands seen", seen)
	}
}

// understand parses an example as the program would, and says which command it calls.
func understand(t *testing.T, line string) string {
	t.Helper()
	words := strings.Fields(line)
	if end := slices.IndexFunc(words, func(w string) bool { return w == ">" || w == "|" || w == "&" }); end >= 0 {
		words = words[:end]
	}
	if len(words) == 0 || words[0] != "nbdcrypt" {
		t.Errorf("example %q is no command line", line)
		return ""
	}
	cmd, rest, err := tree().Find(words[1:])
	if err != nil {
		t.Errorf("example %q: %v", line, err)
		return ""
	}
	if err := cmd.ParseFlags(rest); err != nil {
		t.Errorf("example %q: %v", line, err)
	}
	if err := cmd.ValidateArgs(cmd.Flags().Args()); err != nil {
		t.Errorf("example %q: %v", line, err)
	}
	return cmd.CommandPath()
}

// TestFlagsEverywhere: --json, --project and --run may stand behind every command, and every flag says what it does.
func TestFlagsEverywhere(t *testing.T) {
	walk(tree(), func(cmd *cobra.Command) {
		for _, name := range []string{"json", "project", "run"} {
			if cmd.InheritedFlags().Lookup(name) == nil && cmd.PersistentFlags().Lookup(name) == nil {
				t.Errorf("%s has no --%s", cmd.CommandPath(), name)
			}
		}
		cmd.LocalFlags().VisitAll(func(f *pflag.Flag) {
			if f.Usage == "" {
				t.Errorf("%s --%s says nothing", cmd.CommandPath(), f.Name)
			}
		})
	})
}

// TestBareName: the program's name alone shows the help; `help` shows that of a command.
func TestBareName(t *testing.T) {
	if got := try(t, "/r", ""); got.code != 0 || !strings.Contains(got.out, "Available Commands:") {
		t.Errorf("%+v", got)
	}
	if got := try(t, "/r", "", "help", "disk", "create"); got.code != 0 || !strings.Contains(got.out, "--sector-size") {
		t.Errorf("%+v", got)
	}
}
