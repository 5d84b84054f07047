package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// completeWithin is how long a press of the tab key may wait for the daemon.
const completeWithin = time.Second

func (a *app) completion() *cobra.Command {
	return &cobra.Command{
		Use: "completion SHELL", Short: "Print a script that teaches a shell to complete commands",
		Long: `Print a completion script for bash, zsh, fish or powershell. Names of disks, keys, servers, projects and users are completed too, while the
daemon runs.`,
		Example: `  nbdcrypt completion bash > ~/.local/share/bash-completion/completions/nbdcrypt
  nbdcrypt completion zsh > ~/.zfunc/_nbdcrypt
  nbdcrypt completion fish > ~/.config/fish/completions/nbdcrypt.fish`,
		Args:              wants("SHELL"),
		ValidArgsFunction: cobra.FixedCompletions([]string{"bash", "zsh", "fish", "powershell"}, cobra.ShellCompDirectiveNoFileComp),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			root, out := cmd.Root(), cmd.OutOrStdout()
			switch args[0] {
			case "bash":
				return root.GenBashCompletionV2(out, true)
			case "zsh":
				return root.GenZshCompletion(out)
			case "fish":
				return root.GenFishCompletion(out, true)
			case "powershell":
				return root.GenPowerShellCompletionWithDesc(out)
			}
			return usage(cmd, "no completion for %q: there is one for bash, zsh, fish and powershell", args[0])
		}),
	}
}

// completeDisk completes the name of a disk as the first argument.
func (a *app) completeDisk(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return complete(a, cmd, (*control.Client).DiskList, func(d control.Disk) string { return d.Name + "\t" + humanSize(d.Size) + ", " + d.Status })
}

// completeDevice completes a device to connect.
func (a *app) completeDevice(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
	words := []string{auto + "\tthe first that is free"}
	for _, device := range a.machine.devices() {
		if _, connected, err := a.machine.backend(device); err == nil && !connected {
			words = append(words, device)
		}
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}

// completeAttachment completes the id of an attachment of the disk that is the first argument.
func (a *app) completeAttachment(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	of := func(c *control.Client, ctx context.Context) ([]control.Attachment, error) {
		d, err := c.DiskShow(ctx, args[0])
		return d.Attachments, err
	}
	return complete(a, cmd, of, func(at control.Attachment) string { return at.ID + "\tby " + at.By + " since " + moment(at.Since) })
}

// completeKey completes the alias of a key, as the first argument or as a flag's value.
func (a *app) completeKey(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Flag("key") == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return complete(a, cmd, (*control.Client).KeyList, func(k control.Key) string { return k.Alias + "\t" + k.State })
}

// completeSlot completes the name of a slot, as the first argument.
func (a *app) completeSlot(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return complete(a, cmd, (*control.Client).SlotList, func(s control.Slot) string { return s.Name + "\t" + s.Kind })
}

// complete asks the daemon for names. Without one there is nothing to complete, and no error that a shell could show.
func complete[T any](a *app, cmd *cobra.Command, names func(*control.Client, context.Context) ([]T, error), word func(T) string) ([]string, cobra.ShellCompDirective) {
	client, err := a.client()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, stop := context.WithTimeout(cmd.Context(), completeWithin)
	defer stop()
	items, err := names(client, ctx)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	found := make([]string, len(items))
	for i, item := range items {
		found[i] = word(item)
	}
	return found, cobra.ShellCompDirectiveNoFileComp
}
