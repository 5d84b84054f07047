package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) status() *cobra.Command {
	var keys bool
	cmd := &cobra.Command{
		Use: "status", Short: "Show the daemon: where it keeps things and what is attached",
		Long: `Show the daemon's directories and sockets, how many disks it has, and what protects keys in memory, as the kernel says at this
moment. With --keys also which keys are in memory now, never the keys themselves.`,
		Example: "  nbdcrypt status\n  nbdcrypt status --keys --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			s, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Status, error) { return c.Status(ctx, keys) })
			if err != nil {
				return err
			}
			if keys {
				s.Keys = control.List(s.Keys)
			}
			a.warn(cmd, s.Warnings)
			return a.result(cmd, s, func(w io.Writer) { printStatus(w, s) })
		}),
	}
	cmd.Flags().BoolVar(&keys, "keys", false, "also list the keys that are in memory")
	return cmd
}

func lockedWord(s control.Status) string {
	if s.LockedSince == nil {
		return ""
	}
	return ": locked since " + moment(*s.LockedSince) + ", `nbdcrypt root unlock` opens it"
}

func disksWord(s control.Status) string {
	if s.Closed {
		return "not known until the root key is open"
	}
	return fmt.Sprintf("%d, %d attached", s.Disks, s.Attached)
}

// poolWord tells where layers lie. How much room is there is looked at once the store is open.
func poolWord(s control.Status) string {
	if s.Closed {
		return s.Pool
	}
	return fmt.Sprintf("%s, %s free", s.Pool, humanSize(s.PoolFree))
}

func printStatus(w io.Writer, s control.Status) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "daemon\t%s, process %d, since %s\n", s.Version, s.PID, moment(s.Started))
		fmt.Fprintf(t, "region\t%s\n", s.Region)
		fmt.Fprintf(t, "state\t%s\n", s.State)
		fmt.Fprintf(t, "pool\t%s\n", poolWord(s))
		fmt.Fprintf(t, "root key\t%s%s\n", s.RootKey, lockedWord(s))
		fmt.Fprintf(t, "control\t%s\n", s.Control)
		fmt.Fprintf(t, "nbd\t%s\n", s.NBD)
		for _, uri := range s.Listen {
			if uri != control.URI("", s.NBD) {
				fmt.Fprintf(t, "also nbd\t%s\n", uri)
			}
		}
		fmt.Fprintf(t, "disks\t%s\n", disksWord(s))
		fmt.Fprintf(t, "key memory\t%s\n", memory(s.KeyMemory))
		fmt.Fprintf(t, "process\t%s\n", processWord(s.Protection))
		fmt.Fprintf(t, "swap\t%s\n", swapWord(s.Protection))
		fmt.Fprintf(t, "hibernation\t%s\n", hibernationWord(s.Protection))
	})
	switch {
	case s.Keys == nil:
	case len(s.Keys) == 0:
		fmt.Fprintln(w, "\nNo key is in memory.")
	default:
		fmt.Fprintln(w)
		table(w, func(t io.Writer) {
			fmt.Fprintln(t, "KIND\tID\tFOR\tSINCE")
			for _, k := range s.Keys {
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\n", k.Kind, cmp.Or(k.ID, "-"), k.For, moment(k.Since))
			}
		})
	}
}
