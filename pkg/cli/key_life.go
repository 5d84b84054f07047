package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) keyDisable() *cobra.Command {
	var dry bool
	cmd := &cobra.Command{
		Use: "disable KEY", Short: "Make a key unusable until it is enabled",
		Long: `Disable a key: disks under it can't be attached, those that are attached go on until they are detached. A default key can't be
disabled. --dry-run shows what that would do, and does nothing.`,
		Example:           "  nbdcrypt key disable payroll\n  nbdcrypt key disable payroll --dry-run",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if dry {
				return a.predict(cmd, args[0], "disable", 0)
			}
			return a.oneKey(cmd, func(ctx context.Context, c *control.Client) (control.Key, error) { return c.KeyDisable(ctx, args[0]) })
		}),
	}
	dryRunFlag(cmd, &dry)
	return cmd
}

func (a *app) keySchedule() *cobra.Command {
	var yes, dry bool
	var days int
	cmd := &cobra.Command{
		Use: "schedule-deletion KEY --days N", Short: "Have a key destroyed in 7 to 1096 days",
		Long: `Set the date at which a key is destroyed. From now on it can't be used, as if it were disabled; at that date nothing can ever read
again what is under it. Until then cancel-deletion keeps it. A default key can't be scheduled. Asks first, unless --yes is given; --dry-run
shows what that would do, and does nothing.`,
		Example:           "  nbdcrypt key schedule-deletion payroll --days 30 --dry-run\n  nbdcrypt key schedule-deletion payroll --days 30 --yes",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("days") {
				return usage(cmd, "say in how many days the key is destroyed: --days N, 7 to 1096")
			}
			if dry {
				return a.predict(cmd, args[0], "schedule-deletion", days)
			}
			k, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Key, error) {
				return c.KeySchedule(ctx, args[0], days, yes)
			})
			if err != nil {
				return err
			}
			return a.printsKey(cmd, k)
		}),
	}
	cmd.Flags().IntVar(&days, "days", 0, "in how many days")
	yesFlag(cmd, &yes)
	dryRunFlag(cmd, &dry)
	return cmd
}

func (a *app) keyCancel() *cobra.Command {
	var enable bool
	cmd := &cobra.Command{
		Use: "cancel-deletion KEY", Short: "Keep a key that is scheduled for deletion",
		Long:              `Cancel the deletion of a key. It is Disabled then, and with --enable Enabled; one without key material is Pending import again.`,
		Example:           "  nbdcrypt key cancel-deletion payroll --enable",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneKey(cmd, func(ctx context.Context, c *control.Client) (control.Key, error) {
				return c.KeyCancel(ctx, args[0], enable)
			})
		}),
	}
	cmd.Flags().BoolVar(&enable, "enable", false, "make it usable at once")
	return cmd
}

func (a *app) keyDelete() *cobra.Command {
	var yes, dry bool
	cmd := &cobra.Command{
		Use: "delete KEY", Short: "Destroy a key whose date of deletion has come",
		Long: `Destroy a key whose date has come, and with it all that is under it. The daemon does that on its own, unless it doubts the clock
(see clock show); before the date nobody can. Asks first, unless --yes is given; --dry-run shows what that would do, and does nothing.`,
		Example:           "  nbdcrypt key delete payroll --dry-run\n  nbdcrypt key delete payroll --yes",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if dry {
				return a.predict(cmd, args[0], "delete", 0)
			}
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.KeyDelete(ctx, args[0], yes)
			})
			if err == nil {
				a.say(cmd, "key %s is destroyed", args[0])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	dryRunFlag(cmd, &dry)
	return cmd
}
