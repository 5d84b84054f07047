package cli

import (
	"context"
	"fmt"
	"io"
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
	passphrase := false
	for _, s := range slots {
		switch {
		case !s.Present:
		case s.Kind == control.SlotKeyFile:
			ways = append(ways, "from "+s.Detail)
		case s.Kind == control.SlotPassphrase && !passphrase:
			passphrase = true
			ways = append(ways, "by a passphrase")
		}
	}
	return strings.Join(ways, " or ")
}
