package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) diskRewrap() *cobra.Command {
	var key string
	cmd := &cobra.Command{
		Use: "rewrap DISK --key KEY", Short: "Put a disk under another key, or a newer version of its own",
		Long: `Wrap the data keys of a disk under the newest version of KEY, which may be the key that the disk is under. The disk may be attached, and not
a byte of its data is written: what can be read with the old key's material and an older copy of the key store stays so. Both keys
have to be usable.`,
		Example:           "  nbdcrypt disk rewrap db1 --key payroll",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if key == "" {
				return usage(cmd, "--key is missing; the disk's own key means its newest version")
			}
			return a.oneDisk(cmd, func(ctx context.Context, c *control.Client) (control.Disk, error) {
				return c.DiskRewrap(ctx, args[0], key)
			})
		}),
	}
	cmd.Flags().StringVar(&key, "key", "", "the key that the disk shall be under")
	_ = cmd.RegisterFlagCompletionFunc("key", a.completeKey) // the flag exists: it can't fail
	return cmd
}

func (a *app) keyRewrap() *cobra.Command {
	var to string
	cmd := &cobra.Command{
		Use: "rewrap KEY", Short: "Put all that is under a key under its newest version, or another key",
		Long: `Do what disk rewrap does with every disk, attached or not, and every snapshot, image and backup under KEY: put it under the newest version of
that key, or with --to under another key. It goes on past one that can't be done, and exits with its error. Interrupted, it leaves each as it
was or as it shall be; the same command again does the rest. Scaling configurations stay as they are: what they make is under KEY further on, but for the system disks, which
are as their image is. What was copied out of here before, such as an exported backup, stays as it is.`,
		Example:           "  nbdcrypt key rewrap payroll\n  nbdcrypt key rewrap payroll --to wages",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("to") && to == "" {
				return usage(cmd, "--to is empty")
			}
			r, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Rewrapped, error) {
				return c.KeyRewrap(ctx, args[0], to)
			})
			if err != nil {
				return err
			}
			r.Failed = control.List(r.Failed)
			a.warn(cmd, r.Warnings)
			if err := a.result(cmd, r, func(w io.Writer) { printRewrapped(w, r) }); err != nil {
				return err
			}
			return rewrapFailure(r)
		}),
	}
	cmd.Flags().StringVar(&to, "to", "", "the key that all of it shall be under")
	_ = cmd.RegisterFlagCompletionFunc("to", func(cmd *cobra.Command, _ []string, word string) ([]string, cobra.ShellCompDirective) {
		return a.completeKey(cmd, nil, word)
	})
	return cmd
}

func printRewrapped(w io.Writer, r control.Rewrapped) {
	fmt.Fprintf(w, "%d of %s of key %s put under version %d of key %s\n", r.Rewrapped, count(r.Uses, "use", "uses"), r.Key, r.Version, r.To)
	if same := r.Uses - r.Rewrapped - len(r.Failed); same > 0 {
		fmt.Fprintf(w, "%s: nothing to do\n", count(same, "use", "uses"))
	}
	for _, f := range r.Failed {
		fmt.Fprintf(w, "%s %s (%s) stays as it was: %s\n", f.Kind, f.Name, f.ID, f.Error.Message)
	}
}

// rewrapFailure is the error of the first that stayed as it was.
func rewrapFailure(r control.Rewrapped) error {
	if len(r.Failed) == 0 {
		return nil
	}
	first := r.Failed[0].Error.Refusal()
	return refusal.New(first.Code, first.Hint, "%s stayed as %s: %s", count(len(r.Failed), "use", "uses"),
		map[bool]string{true: "it was", false: "they were"}[len(r.Failed) == 1], first.Message)
}
