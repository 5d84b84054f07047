package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) detach() *cobra.Command {
	var how control.DetachHow
	var force bool
	cmd := &cobra.Command{
		Use: "detach DISK", Short: "End what attach began: flush the disk and wipe its key",
		Long: `Let requests in flight finish, flush the disk, disconnect its clients and wipe its key from memory. Where the disk's key is
not usable, so that it could not be attached again, or where another host has it attached, this asks first, unless --yes is given.

Of a shared disk this ends one attachment: your newest, or for root the newest of all, or the one that --attachment names (disk show
prints them). Clients that are there because of it are disconnected. The key is wiped with the last.

A disk that a running server has is detached by 'server stop', or from it by 'server detach'.

What attach has mounted is unmounted first, and its device written out and disconnected, which needs root. While anything else uses the
device, this is refused, naming it. --force disconnects it all the same: what was not written to it yet is lost.

After each detach of an encrypted disk the daemon searches its own memory for the key, and puts the result into the audit log. --attest
waits for that and prints it; where anything of the key is found it exits 1 and says where.`,
		Example:           "  nbdcrypt detach db1\n  nbdcrypt detach db1 --attest\n  nbdcrypt detach quorum --attachment 7f1c2a9e-3b52-4d0e-9a44-2f5c1c6f0b11",
		Args:              wants("DISK"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("attachment") && how.Attachment == "" {
				return usage(cmd, "--attachment is empty")
			}
			gone, err := a.detachDisk(cmd, args[0], how, force)
			if err != nil {
				return err
			}
			a.warn(cmd, gone.Warnings)
			err = a.result(cmd, gone, func(w io.Writer) {
				printDetached(w, gone)
				if how.Attest && gone.Left == 0 {
					printAttest(w, gone.Attest)
				}
			})
			if err != nil || gone.Attest == nil {
				return err
			}
			return traces(gone)
		}),
	}
	yesFlag(cmd, &how.Yes)
	cmd.Flags().BoolVar(&how.Attest, "attest", false, "wait until memory was searched for the key")
	cmd.Flags().BoolVar(&force, "force", false, "disconnect its device though it is in use; what is not written yet is lost")
	cmd.Flags().StringVar(&how.Attachment, "attachment", "", "which attachment of a shared disk to end, by its id")
	_ = cmd.RegisterFlagCompletionFunc("attachment", a.completeAttachment) // the flag exists: it can't fail
	return cmd
}

func printDetached(w io.Writer, gone control.Detached) {
	line := gone.Disk + " is detached"
	if gone.Left > 0 {
		line = fmt.Sprintf("attachment %s of %s has ended; %s left", gone.Attachment, gone.Disk, count(gone.Left, "is", "are"))
	}
	if gone.Device != nil {
		line += "; " + *gone.Device + " is disconnected"
	}
	if gone.Clients > 0 {
		line += fmt.Sprintf("; %s disconnected", count(gone.Clients, "client was", "clients were"))
	}
	fmt.Fprintln(w, line)
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
