package cli

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// roles are the words for --help and completion; whether one is a role the daemon says.
var roles = []string{"security-admin\tgrants rights, administers keys", "user\tmakes, attaches and deletes disks", "auditor\tlooks at everything, reads the log"}

func (a *app) role() *cobra.Command {
	return group("role", "Who may do what in a project",
		`A user of this machine is in a project what his roles say. security-admin: grants rights and roles, administers keys, and does not get at
data. user: makes, attaches and deletes disks, and makes keys. auditor: sees everything and reads the log. Root and the daemon's user hold
every role in every project.`,
		"  nbdcrypt role grant alice user\n  nbdcrypt role list --project shop\n  nbdcrypt role revoke alice user",
		a.roleGrant(), a.roleList(), a.roleRevoke())
}

func (a *app) roleGrant() *cobra.Command {
	return &cobra.Command{
		Use: "grant USER security-admin|user|auditor", Short: "Give a user a role",
		Long: `Give a user of this machine, by name or uid, a role in the project. Administering keys and using data are kept apart: one person holds
both only by two grants, of which the second says so, and nobody gives it to himself.`,
		Example:           "  nbdcrypt role grant alice user\n  nbdcrypt role grant 1001 auditor --project shop",
		Args:              wants("USER", "ROLE"),
		ValidArgsFunction: a.completeRole(localUsers),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			r, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Role, error) {
				return c.RoleGrant(ctx, args[0], args[1])
			})
			if err != nil {
				return err
			}
			a.warn(cmd, r.Warnings)
			return a.result(cmd, r, func(w io.Writer) { fmt.Fprintf(w, "%s (%d) is %s in project %s\n", r.User, r.UID, r.Role, r.Project) })
		}),
	}
}

func (a *app) roleList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List who has which role",
		Long:    "List the roles in the project. The name is the one that the user had when the role was given; the uid decides.",
		Example: "  nbdcrypt role list --project shop",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			all, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Role, error) { return c.RoleList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, all, "Nobody has a role here but root and the daemon's user, who hold all: `nbdcrypt role grant USER ROLE` gives one.",
				"USER UID ROLE", func(r control.Role) []string { return []string{r.User, strconv.FormatUint(uint64(r.UID), 10), r.Role} })
		}),
	}
}

func (a *app) roleRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke USER ROLE", Short: "Take a role away",
		Long: `Take a role from a user, by name or uid. It ends what he may ask from now on; disks that he has attached stay so, and open for him, until
they are detached.`,
		Example:           "  nbdcrypt role revoke alice user",
		Args:              wants("USER", "ROLE"),
		ValidArgsFunction: a.completeRole(a.usersWithRoles),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (struct{}, error) {
				return struct{}{}, c.RoleRevoke(ctx, args[0], args[1])
			})
			if err == nil {
				a.say(cmd, "%s is %s in project %s no more", args[0], args[1], a.project)
			}
			return err
		}),
	}
}

// usersWithRoles are the users for whom there is something to revoke.
func (a *app) usersWithRoles(cmd *cobra.Command) []string {
	all, _ := complete(a, cmd, (*control.Client).RoleList, func(r control.Role) string { return r.User })
	slices.Sort(all)
	return slices.Compact(all)
}
