package cli

import (
	"context"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/token"
)

func (a *app) slotAddToken() *cobra.Command {
	var ask control.SlotTokenAdd
	cmd := &cobra.Command{
		Use: "pkcs11", Short: "Let a key on a PKCS#11 token open the root key",
		Long: `Let a key on a PKCS#11 token (an HSM, a smart card) open the root key at the daemon's start, without anybody. The key is named by a
URI of RFC 7512 and has to be on the token already: AES-256 or an RSA pair of at least 2048 bits, sensitive and not extractable, for
decrypting. The daemon needs the program nbdcrypt-pkcs11 beside it, which "make pkcs11" builds.

The root key is in the daemon's memory then, as with other slots. To keep it on the token for good, see --root-key of "serve".`,
		Example: `  nbdcrypt root slot add pkcs11 --token 'pkcs11:token=box;object=nbdcrypt?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/nbdcrypt/pin'`,
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if _, err := token.Parse(ask.Token); err != nil {
				return usage(cmd, "--token %.300q does not name a key on a token: %v", ask.Token, err)
			}
			slot, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Slot, error) { return c.SlotToken(ctx, ask) })
			if err != nil {
				return err
			}
			return a.result(cmd, slot, func(w io.Writer) { printSlot(w, slot) })
		}),
	}
	cmd.Flags().StringVar(&ask.Name, "name", "pkcs11", "what to call the slot")
	cmd.Flags().StringVar(&ask.Token, "token", "", "the URI of the key: pkcs11:token=LABEL;object=KEY?module-path=/PATH&pin-source=file:/PATH")
	return cmd
}
