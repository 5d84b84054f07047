package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func serverWord(s control.Server) string { return s.Name + "\t" + s.Status }

// completeServer completes the name of a server as the first argument.
func (a *app) completeServer(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return complete(a, cmd, (*control.Client).ServerList, serverWord)
}

// completeServers completes the names of servers that do not stand there yet.
func (a *app) completeServers(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	words, directive := complete(a, cmd, (*control.Client).ServerList, serverWord)
	return slices.DeleteFunc(words, func(word string) bool {
		name, _, _ := strings.Cut(word, "\t")
		return slices.Contains(args, name)
	}), directive
}

// completeServerFlag completes the name of a server, whatever arguments there are.
func (a *app) completeServerFlag(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return complete(a, cmd, (*control.Client).ServerList, serverWord)
}

// completeServerAttach completes a server, and then any disk.
func (a *app) completeServerAttach(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return a.completeDisk(cmd, nil, typed)
	}
	return a.completeServer(cmd, args, typed)
}

// completeServerDetach completes a server, and then its disks.
func (a *app) completeServerDetach(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) != 1 {
		return a.completeServer(cmd, args, typed)
	}
	of := func(c *control.Client, ctx context.Context) ([]control.ServerDisk, error) {
		s, err := c.ServerShow(ctx, args[0])
		return s.Disks, err
	}
	return complete(a, cmd, of, func(d control.ServerDisk) string { return d.Name + "\t" + d.Role + ", " + humanSize(d.Size) })
}

// completeConfig completes the name of a scaling configuration as the first argument.
func (a *app) completeConfig(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeConfigFlag(cmd, args, typed)
}

// completeConfigFlag completes the name of a scaling configuration, whatever arguments there are.
func (a *app) completeConfigFlag(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return complete(a, cmd, (*control.Client).ConfigList, func(c control.ScalingConfig) string { return c.Name + "\tof image " + c.Image.Name })
}

// completeGroup completes the name of a scaling group as the first argument.
func (a *app) completeGroup(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return complete(a, cmd, (*control.Client).GroupList, func(g control.ScalingGroup) string {
		return g.Name + "\t" + count(g.Size, "member", "members") + " of " + g.Config.Name
	})
}
