package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) imageCopy() *cobra.Command {
	var key string
	var plain bool
	cmd := &cobra.Command{
		Use: "copy IMAGE NAME", Short: "Copy an image, to have it under another key or plain",
		Long: `Make another image of all that an image holds, in one layer under a data key of its own: under --key, or under none with --plain. With neither
it is as the first one, under the same key. The first one stays as it is. The data is read and written by the daemon; that it was copied, and under what,
stands in the audit log. If it is interrupted, nothing of the copy stays.`,
		Example: `  nbdcrypt image copy golden golden-payroll --key payroll
  nbdcrypt image copy golden golden-open --plain`,
		Args:              wants("IMAGE", "NAME"),
		ValidArgsFunction: a.completeImage,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := checkEncryption(cmd, false, plain, key, "image"); err != nil {
				return err
			}
			to := control.ImageCopy{Name: args[1], Key: key}
			if encrypted := key != ""; encrypted || plain {
				to.Encrypted = &encrypted
			}
			return a.oneImage(cmd, func(ctx context.Context, c *control.Client) (control.Image, error) {
				return c.ImageCopy(ctx, args[0], to)
			})
		}),
	}
	cmd.Flags().BoolVar(&plain, "plain", false, "don't encrypt the copy")
	cmd.Flags().StringVar(&key, "key", "", "the key that the copy is under")
	_ = cmd.RegisterFlagCompletionFunc("key", a.completeKey) // the flag exists: it can't fail
	return cmd
}
