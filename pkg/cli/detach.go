package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) detach() *cobra.Command {
	var yes, attest bool
	cmd := &cobra.Command{
		Use: "detach DISK", Short: "End what attach began: flush the disk and wipe its key",
		Long: `Let requests in flight finish, flush the disk, disconnect its clients and wipe its key from memory. Where the disk's key is
not usable, so that it could not be attached again, or where another host has it attached, this asks first, unless --yes is given.

After each detach of an encrypted disk the daemon searches its own memory for the key, and puts the result into the audit log. --attest
waits for that and prints it; where anything of the key is found it exits 1 and says where.`,
		Example:           "  nbdcrypt detach db1\n  nbdcrypt detach db1 --attest",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			gone, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Detached, error) {
				if attest {
					return c.DetachAttested(ctx, args[0], yes)
				}
				return c.Detach(ctx, args[0], yes)
			})
			if err != nil {
				return err
			}
			a.warn(cmd, gone.Warnings)
			err = a.result(cmd, gone, func(w io.Writer) {
				printDetached(w, gone)
				if attest {
					printAttest(w, gone.Attest)
				}
			})
			if err != nil || gone.Attest == nil {
				return err
			}
			return traces(gone)
		}),
	}
	yesFlag(cmd, &yes)
	cmd.Flags().BoolVar(&attest, "attest", false, "wait until memory was searched for the key")
	return cmd
}

func printDetached(w io.Writer, gone control.Detached) {
	if gone.Clients == 0 {
		fmt.Fprintf(w, "%s is detached\n", gone.Disk)
		return
	}
	fmt.Fprintf(w, "%s is detached; %s disconnected\n", gone.Disk, count(gone.Clients, "client was", "clients were"))
}

func printAttest(w io.Writer, a *control.Attest) {
	if a == nil {
		fmt.Fprintln(w, "there was no key of it in memory to search for")
		return
	}
	for _, h := range a.Hits {
		fmt.Fprintf(w, "found: %s\n  where: %s\n", h.What, strings.TrimSpace(h.Region+" "+h.Address))
		if h.Layer != "" {
			fmt.Fprintf(w, "  layer: %s\n", h.Layer)
		}
	}
	found := "no trace of the key"
	if a.Found > 0 {
		found = count(a.Found, "trace", "traces")
	}
	fmt.Fprintf(w, "searched %s in %s: %s\n", count(int(a.Bytes), "byte", "bytes"), count(a.Regions, "region", "regions"), found)
	if a.Unreadable > 0 {
		fmt.Fprintf(w, "%s could not be read: they were unmapped meanwhile, or lie past the end of a file\n", count(int(a.Unreadable), "byte", "bytes"))
	}
}

// traces is the error that a search which found something stands for.
func traces(gone control.Detached) error {
	if gone.Attest.Found == 0 {
		return nil
	}
	var regions []string
	for _, h := range gone.Attest.Hits {
		if !slices.Contains(regions, h.Region) {
			regions = append(regions, h.Region)
		}
	}
	return refusal.New(refusal.Failed, "restart the daemon, whose memory goes with it, and report this",
		"%s is detached and its key wiped, but found in memory: %s, in %s", gone.Disk, count(gone.Attest.Found, "trace", "traces"), strings.Join(regions, ", "))
}
