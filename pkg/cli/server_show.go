package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/vm/libvirt"
)

// Domain is what `server show --libvirt` prints.
type Domain struct {
	XML string `json:"xml"`
}

func (a *app) serverShow() *cobra.Command {
	var domain bool
	cmd := &cobra.Command{
		Use: "show SERVER", Short: "Show a server",
		Long: `Show a server: what it is doing, its machine, its disks with their keys, where its console is, and how its last run ended.

With --libvirt a description of it as a domain of libvirt's is printed, for those who attach its disks themselves and run it there: its disks are
network disks, of the daemon's socket.`,
		Example:           "  nbdcrypt server show web1\n  nbdcrypt server show web1 --libvirt > web1.xml",
		Args:              wants("SERVER"),
		ValidArgsFunction: a.completeServer,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if domain {
				return a.showDomain(cmd, args[0])
			}
			return a.oneServer(cmd, func(ctx context.Context, c *control.Client) (control.Server, error) {
				return c.ServerShow(ctx, args[0])
			})
		}),
	}
	cmd.Flags().BoolVar(&domain, "libvirt", false, "print it as a domain of libvirt's, in XML")
	return cmd
}

// showDomain prints a server as a domain, and what has to be done before libvirt can start that.
func (a *app) showDomain(cmd *cobra.Command, name string) error {
	var socket string
	s, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (s control.Server, err error) {
		status, err := c.Status(ctx, false)
		if err != nil {
			return s, err
		}
		socket = status.NBD
		return c.ServerShow(ctx, name)
	})
	if err != nil {
		return err
	}
	text, err := libvirt.Domain(s, socket)
	if err != nil {
		return err
	}
	a.domainNote(cmd, s)
	return a.result(cmd, Domain{text}, func(w io.Writer) { fmt.Fprintln(w, strings.TrimRight(text, "\n")) })
}

func (a *app) domainNote(cmd *cobra.Command, s control.Server) {
	if a.json {
		return
	}
	a.say(cmd, "note: libvirt does not attach disks. Before the domain is started, let libvirt's QEMU have them, and detach them after it has ended:")
	for _, d := range s.Disks {
		a.say(cmd, "  nbdcrypt attach %s --allow libvirt-qemu", detachWords(control.Attached{Disk: d.Name, Export: control.ExportName(s.Project, d.Name)}))
	}
}
