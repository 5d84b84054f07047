package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) keyRotate() *cobra.Command {
	return a.keyVerb("rotate", "Give a key new key material",
		`Add a version to a key: new disks are under it. The versions before it are kept, so that disks under those go on as ever, and nothing is
encrypted anew; key rewrap puts them under the new one. Default keys and keys with imported material can't be rotated.`,
		(*control.Client).KeyRotate)
}

func (a *app) keyRotation() *cobra.Command {
	var days string
	cmd := &cobra.Command{
		Use: "rotation KEY --days N|off", Short: "Have a key rotated every so many days",
		Long: `Have a key rotated every 30 to 365 days, counted from now and then from each rotation, or not any more. A key that is disabled when its
time comes is rotated once it is enabled.`,
		Example:           "  nbdcrypt key rotation payroll --days 90\n  nbdcrypt key rotation payroll --days off",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			n, err := rotationDays(cmd, days)
			if err != nil {
				return err
			}
			return a.oneKey(cmd, func(ctx context.Context, c *control.Client) (control.Key, error) {
				return c.KeyRotation(ctx, args[0], n)
			})
		}),
	}
	cmd.Flags().StringVar(&days, "days", "", "30 to 365, or off")
	_ = cmd.RegisterFlagCompletionFunc("days", cobra.FixedCompletions([]string{"off", "90", "365"}, cobra.ShellCompDirectiveNoFileComp)) // the flag exists: it can't fail
	return cmd
}

// rotationDays reads --days; 0 is off, which a number can't say.
func rotationDays(cmd *cobra.Command, text string) (int, error) {
	if text == "off" {
		return 0, nil
	}
	n, err := strconv.Atoi(text)
	switch {
	case !cmd.Flags().Changed("days"):
		return 0, usage(cmd, "--days is missing")
	case err != nil, n == 0:
		return 0, usage(cmd, "--days %s is neither a number of days nor off", text)
	}
	return n, nil
}

func (a *app) keyDeleteMaterial() *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{
		Use: "delete-material KEY", Short: "Destroy imported key material at once",
		Long: `Destroy the imported key material of a key, at once. The key stays, and is Pending import: disks under it can't be attached, those that are
attached go on until they are detached. Importing the same bytes again makes them attach again; where nobody has those any more they are
lost. Asks first, unless --yes is given; --dry-run shows what that would do, and does nothing.`,
		Example:           "  nbdcrypt key delete-material theirs --dry-run\n  nbdcrypt key delete-material theirs --yes",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if dry {
				return a.predict(cmd, args[0], "delete-material", 0)
			}
			k, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Key, error) {
				return c.KeyDeleteMaterial(ctx, args[0], yes)
			})
			if err != nil {
				return err
			}
			return a.printsKey(cmd, k)
		}),
	}
	yesFlag(cmd, &yes)
	dryRunFlag(cmd, &dry)
	return cmd
}
