package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// operations are the words for completion; whether one is an operation the daemon says.
var operations = []string{"decrypt\tattach, detach and see the disks under the key", "encrypt\tmake disks under the key", "describe\tsee the key and what uses it"}

func (a *app) keyGrant() *cobra.Command {
	return &cobra.Command{
		Use: "grant KEY USER OPERATION", Short: "Let a user do one thing with one key",
		Long: `Let a user of this machine, by name or uid, do one thing with a key, whatever roles he has. OPERATION is decrypt (attach, detach and see
the disks under it), encrypt (make disks under it, and move disks to it) or describe (see the key and what uses it). Grants add up.
A key has at most 100.`,
		Example:           "  nbdcrypt key grant payroll alice decrypt",
		Args:              wants("KEY", "USER", "OPERATION"),
		ValidArgsFunction: a.completeKeyGrant,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			g, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.KeyGrant, error) {
				return c.KeyGrant(ctx, args[0], args[1], args[2])
			})
			if err != nil {
				return err
			}
			a.warn(cmd, g.Warnings)
			return a.result(cmd, g, func(w io.Writer) {
				fmt.Fprintf(w, "%s (%d) may %s with %s: grant %s\n", g.User, g.UID, g.Operation, args[0], g.ID)
			})
		}),
	}
}

func (a *app) keyGrants() *cobra.Command {
	return &cobra.Command{
		Use: "grants KEY", Short: "List who may use a key by a grant",
		Long:              "List the grants of a key. Security administrators and auditors see all of them, others their own.",
		Example:           "  nbdcrypt key grants payroll",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			grants, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.KeyGrant, error) {
				return c.KeyGrants(ctx, args[0])
			})
			if err != nil {
				return err
			}
			return list(a, cmd, grants, "No grants: `nbdcrypt key grant KEY USER OPERATION` makes one.", "ID USER OPERATION BY CREATED",
				func(g control.KeyGrant) []string { return []string{g.ID, g.User, g.Operation, g.By, moment(g.Created)} })
		}),
	}
}

func (a *app) keyRevoke() *cobra.Command {
	return a.endGrant("revoke KEY GRANT", "Take a grant of a key back",
		"Take a grant back, by its id, which `key grants` shows. It ends what the user may ask from now on; disks that he has attached stay so until\nthey are detached.",
		"is revoked", (*control.Client).KeyGrantRevoke)
}

func (a *app) keyRetire() *cobra.Command {
	return a.endGrant("retire KEY GRANT", "Give your own grant of a key back",
		"Give a grant back that is yours, by its id, which `key grants` shows.", "is retired", (*control.Client).KeyGrantRetire)
}

func (a *app) endGrant(use, short, long, done string, call func(*control.Client, context.Context, string, string) error) *cobra.Command {
	cmd := &cobra.Command{
		Use: use, Short: short, Long: long,
		Args:              wants("KEY", "GRANT"),
		ValidArgsFunction: a.completeGrant,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (struct{}, error) {
				return struct{}{}, call(c, ctx, args[0], args[1])
			})
			if err == nil {
				a.say(cmd, "grant %s of %s %s", args[1], args[0], done)
			}
			return err
		}),
	}
	cmd.Example = "  nbdcrypt key " + cmd.Name() + " payroll 3f0c41d2-5a57-4d0e-9f3e-0d6c1f1d7a11"
	return cmd
}
