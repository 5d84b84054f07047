package cli

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) root() *cobra.Command {
	root := group("nbdcrypt", "Encrypted virtual disks over NBD, with managed keys",
		`nbdcrypt exports virtual disks over NBD. Their sectors are encrypted with XTS-AES-256 under keys that a local key store
keeps; a disk is readable from attach to detach and at no other time.

"nbdcrypt serve" is the daemon; the other commands ask it over a socket in its run directory.`,
		`  nbdcrypt serve &
  nbdcrypt grant create
  nbdcrypt disk create db1 --size 10G --encrypted
  nbdcrypt attach db1
  nbdcrypt detach db1`,
		a.serve(), a.demo(), a.bench(), a.status(), a.check(), a.projects(), a.role(), a.grant(), a.key(), a.disk(), a.attach(), a.detach(), a.snapshot(), a.image(), a.backup(), a.server(), a.scaling(),
		a.rootKey(), a.audit(), a.clock(), a.completion(), a.version())
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	about := help()
	root.AddCommand(about)
	root.SetHelpCommand(about)
	flags := root.PersistentFlags()
	flags.BoolVar(&a.json, "json", false, "print results, and errors, as JSON")
	flags.StringVar(&a.project, "project", control.DefaultProject, "the project that the command is about")
	_ = root.RegisterFlagCompletionFunc("project", a.completeProjectFlag) // the flag exists: it can't fail
	flags.StringVar(&a.run, "run", "", "the daemon's run directory (default $NBDCRYPT_RUN, /run/nbdcrypt or $XDG_RUNTIME_DIR/nbdcrypt)")
	return root
}

// group makes a command that only holds others. Called by itself, or with a word that is none of them, it is a mistake;
// only the program's own name alone shows the help.
func group(name, short, long, example string, subs ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{Use: name, Short: short, Long: long, Example: example, Args: cobra.ArbitraryArgs}
	cmd.AddCommand(subs...)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) > 0:
			return unknown(cmd, args[0])
		case cmd.HasParent():
			return usage(cmd, "%s needs one of: %s", cmd.Name(), strings.Join(words(cmd), ", "))
		}
		return cmd.Help()
	}
	return cmd
}

func unknown(cmd *cobra.Command, word string) error {
	if cmd.SuggestionsMinimumDistance == 0 {
		cmd.SuggestionsMinimumDistance = 2
	}
	if near := cmd.SuggestionsFor(word); len(near) > 0 {
		return usage(cmd, "%s has no command %q: did you mean %s?", cmd.Name(), word, strings.Join(near, " or "))
	}
	return usage(cmd, "%s has no command %q: it has %s", cmd.Name(), word, strings.Join(words(cmd), ", "))
}

func words(cmd *cobra.Command) []string {
	var names []string
	for _, sub := range cmd.Commands() {
		if sub.IsAvailableCommand() {
			names = append(names, sub.Name())
		}
	}
	return names
}

// wants checks that the arguments are those named; the last may be missing where it stands in brackets.
func wants(names ...string) cobra.PositionalArgs {
	least := len(names)
	if least > 0 && strings.HasPrefix(names[least-1], "[") {
		least--
	}
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return usage(cmd, "%s is missing", names[len(args)])
		case len(args) > len(names):
			return usage(cmd, "%q is one argument too many", args[len(names)])
		}
		if at := slices.Index(args, ""); at >= 0 {
			return usage(cmd, "%s is empty", strings.Trim(names[at], "[]"))
		}
		return nil
	}
}

func help() *cobra.Command {
	return &cobra.Command{
		Use: "help [COMMAND]...", Short: "Show how a command is called",
		Long:    "Show what a command does, how it is called, and an example of it.",
		Example: "  nbdcrypt help disk create",
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			about, rest, err := cmd.Root().Find(args)
			if err != nil || len(rest) > 0 {
				return usage(cmd.Root(), "no command %q", strings.Join(args, " "))
			}
			return about.Help()
		}),
	}
}
