package cli

import "github.com/spf13/cobra"

func (a *app) demo() *cobra.Command {
	return &cobra.Command{
		Use: "demo", Short: "Show the main job from nothing to nothing, in a temporary directory",
		Long: `Start a daemon of its own in a temporary directory, make an encrypted disk, write to it, look for the plaintext in its
files, disable its key, and find everything again. Each step says what was checked. Nothing is left behind.`,
		Example: "  nbdcrypt demo",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.hooks.Demo(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
}
