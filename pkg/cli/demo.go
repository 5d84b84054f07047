package cli

import "github.com/spf13/cobra"

// DemoOptions say what the demo is to take.
type DemoOptions struct {
	Kernel string // that its server boots; one that is installed where it is empty
}

func (a *app) demo() *cobra.Command {
	var o DemoOptions
	cmd := &cobra.Command{
		Use: "demo", Short: "Show the main job from nothing to nothing, in a temporary directory",
		Long: `Start a daemon of its own in a temporary directory, make an encrypted disk, write to it, look for the plaintext in its
files, disable its key, and find everything again. At the end a server boots from an encrypted image, where QEMU, syslinux, mtools,
dosfstools and a kernel are there. Each step says what was checked. Nothing is left behind.`,
		Example: "  nbdcrypt demo\n  nbdcrypt demo --kernel /boot/vmlinuz-6.12.0-amd64",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.hooks.Demo(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	cmd.Flags().StringVar(&o.Kernel, "kernel", "", "the Linux kernel that the server boots (default: the newest in /boot)")
	return cmd
}
