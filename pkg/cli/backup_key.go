package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) backupKey() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use: "key", Short: "Print the public key that backups are verified with",
		Long: `Print the public half of the Ed25519 key that signs this store's backups, as PEM, or write it to the new file of --out. It is no secret, but whoever verifies
backups with it has to know that it is yours: carry it there by a way that nobody else writes to. It stays the same for the life of the store.`,
		Example: "  nbdcrypt backup key --out store.pem\n  nbdcrypt backup key | ssh elsewhere 'cat > store.pem'",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("out") && out == "" {
				return usage(cmd, "--out is empty")
			}
			key, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.BackupKey, error) { return c.BackupKey(ctx) })
			if err != nil {
				return err
			}
			if out == "" {
				return a.result(cmd, key, func(w io.Writer) { fmt.Fprint(w, key.PEM) })
			}
			if err := writeNewFile(out, []byte(key.PEM)); err != nil {
				return err
			}
			a.say(cmd, "the public key of store %s is in %s", key.Store, out)
			return nil
		}),
	}
	cmd.Flags().StringVar(&out, "out", "", "write it to this new file")
	_ = cmd.MarkFlagFilename("out") // the flag exists: it can't fail
	return cmd
}

// writeNewFile writes one new file.
func writeNewFile(path string, text []byte) error {
	files, err := newFiles(path)
	if err != nil {
		return err
	}
	defer files.drop()
	if err := files.write(0, text); err != nil {
		return fileRefusal(path, err)
	}
	files.keep()
	return nil
}
