package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) imageCopy() *cobra.Command {
	var key string
	var encrypted, plain bool
	cmd := &cobra.Command{
		Use: "copy IMAGE NAME", Short: "Copy an image, to have it under another key or plain",
		Long: `Make another image of all that an image holds, in one layer under a data key of its own: under --key, or the project's default key with --encrypted, or under none with --plain. With none of them
it is as the first one, under the same key. The first one stays as it is. The data is read and written by the daemon; that it was copied, and under what,
stands in the audit log. If it is interrupted, nothing of the copy stays.`,
		Example: `  nbdcrypt image copy golden golden-payroll --key payroll
  nbdcrypt image copy golden golden-open --plain
  nbdcrypt image copy golden-open golden2 --encrypted`,
		Args:              wants("IMAGE", "NAME"),
		ValidArgsFunction: a.completeImage,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := checkEncryption(cmd, encrypted, plain, key, "image"); err != nil {
				return err
			}
			to := control.ImageCopy{Name: args[1], Key: key}
			if yes := encrypted || key != ""; yes || plain {
				to.Encrypted = &yes
			}
			return a.oneImage(cmd, func(ctx context.Context, c *control.Client) (control.Image, error) {
				return c.ImageCopy(ctx, args[0], to)
			})
		}),
	}
	encryptionFlags(cmd, &encrypted, &plain, &key, "copy")
	_ = cmd.RegisterFlagCompletionFunc("key", a.completeKey) // the flag exists: it can't fail
	return cmd
}
