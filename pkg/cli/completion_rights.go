package cli

import (
	"context"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// completeProject completes the name of a project, as the first argument or as a flag's value.
func (a *app) completeProject(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.projectNames(cmd)
}

// completeProjectFlag completes --project, whatever arguments there are.
func (a *app) completeProjectFlag(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return a.projectNames(cmd)
}

func (a *app) projectNames(cmd *cobra.Command) ([]string, cobra.ShellCompDirective) {
	return complete(a, cmd, (*control.Client).ProjectList, func(p control.Project) string { return p.Name + "\tencryption " + grantedWord(p.Granted) })
}

// completeKeyOf completes a key of the project that is the first argument.
func (a *app) completeKeyOf(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		a.project = args[0]
	}
	return complete(a, cmd, (*control.Client).KeyList, func(k control.Key) string { return k.Alias + "\t" + k.State })
}

// completeRole completes USER, from those that users names, and ROLE.
func (a *app) completeRole(users func(*cobra.Command) []string) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		switch len(args) {
		case 0:
			return users(cmd), cobra.ShellCompDirectiveNoFileComp
		case 1:
			return roles, cobra.ShellCompDirectiveNoFileComp
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeKeyGrant completes KEY, USER and OPERATION.
func (a *app) completeKeyGrant(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeKey(cmd, args, word)
	case 1:
		return localUsers(cmd), cobra.ShellCompDirectiveNoFileComp
	case 2:
		return operations, cobra.ShellCompDirectiveNoFileComp
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeGrant completes KEY, and the id of one of its grants.
func (a *app) completeGrant(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	switch len(args) {
	case 0:
		return a.completeKey(cmd, args, word)
	case 1:
		of := func(c *control.Client, ctx context.Context) ([]control.KeyGrant, error) {
			return c.KeyGrants(ctx, args[0])
		}
		return complete(a, cmd, of, func(g control.KeyGrant) string { return g.ID + "\t" + g.User + ", " + g.Operation })
	}
	return nil, cobra.ShellCompDirectiveNoFileComp
}

// completeUser completes a user of this machine, as a flag's value.
func completeUser(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return localUsers(cmd), cobra.ShellCompDirectiveNoFileComp
}

// localUsers are the users that this machine itself knows; others, of a directory service, can be typed.
func localUsers(*cobra.Command) (names []string) {
	text, err := os.ReadFile("/etc/passwd")
	if err != nil {
		return nil
	}
	for line := range strings.Lines(string(text)) {
		if name, _, ok := strings.Cut(line, ":"); ok && name != "" && !strings.HasPrefix(name, "#") {
			names = append(names, name)
		}
	}
	return names
}
