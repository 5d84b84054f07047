package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) rootLock() *cobra.Command {
	return &cobra.Command{
		Use: "lock", Short: "Wipe the root key from memory",
		Long:    "Wipe the root key from memory until `nbdcrypt root unlock`. It is refused where no slot could open it again.\n\n" + whileLocked,
		Example: "  nbdcrypt root lock",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			state, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.RootState, error) { return c.RootLock(ctx) })
			if err != nil {
				return err
			}
			return a.result(cmd, state, func(w io.Writer) { printLocked(w, state) })
		}),
	}
}

func printLocked(w io.Writer, s control.RootState) {
	word := map[bool]string{true: "the root key is locked", false: "the root key is locked already"}[s.Changed]
	if s.Attached > 0 {
		word += "; " + count(s.Attached, "disk stays attached", "disks stay attached")
	}
	fmt.Fprintln(w, word)
	if ways := waysIn(s.Slots); ways != "" {
		fmt.Fprintf(w, "`nbdcrypt root unlock` opens it again %s\n", ways)
	}
}

// waysIn says what an unlock will take.
func waysIn(slots []control.Slot) string {
	var ways []string
	for _, s := range slots {
		way := map[string]string{control.SlotKeyFile: "from " + s.Detail, control.SlotPassphrase: "by a passphrase", control.SlotTPM: "by the TPM",
			control.SlotCredential: "by a credential", control.SlotPKCS11: "by a token", control.SlotToken: "through its token", control.SlotRecovery: "by a recovery kit (`nbdcrypt root recovery open`)"}[s.Kind]
		if s.Present && way != "" && !slices.Contains(ways, way) {
			ways = append(ways, way)
		}
	}
	return strings.Join(ways, " or ")
}
