package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) key() *cobra.Command {
	return group("key", "The keys that disks are under",
		`A key (customer master key) wraps the data keys of disks. A disk whose key is not Enabled can't be attached; one that is attached
goes on until it is detached.`,
		"  nbdcrypt key create payroll\n  nbdcrypt key list\n  nbdcrypt key disable payroll",
		a.keyCreate(), a.keyList(), a.keyShow(), a.keyGrant(), a.keyGrants(), a.keyRevoke(), a.keyRetire(),
		a.keyVerb("enable", "Make a key usable again", "Enable a disabled key: disks under it can be attached again.", (*control.Client).KeyEnable),
		a.keyDisable(), a.keyUpdate(), a.keySchedule(), a.keyCancel(), a.keyDelete(), a.keyUses(),
		a.keyRotate(), a.keyRotation(), a.keyRewrap(), a.keyImport(), a.keyDeleteMaterial())
}

func (a *app) keyShow() *cobra.Command {
	return a.keyVerb("show", "Show a key", "Show a key's state and properties, never its bytes.", (*control.Client).KeyShow)
}

// keyVerb makes a command that does one thing with one key and prints it.
func (a *app) keyVerb(verb, short, long string, call func(*control.Client, context.Context, string) (control.Key, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb + " KEY", Short: short, Long: long,
		Example:           "  nbdcrypt key " + verb + " payroll",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneKey(cmd, func(ctx context.Context, c *control.Client) (control.Key, error) { return call(c, ctx, args[0]) })
		}),
	}
}

func (a *app) oneKey(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Key, error)) error {
	k, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	return a.printsKey(cmd, k)
}

func (a *app) printsKey(cmd *cobra.Command, k control.Key) error {
	return a.result(cmd, k, func(w io.Writer) { printKey(w, k) })
}

func (a *app) keyList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the project's keys",
		Long:    "List the keys of the project with their states.",
		Example: "  nbdcrypt key list --project shop",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			keys, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Key, error) { return c.KeyList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, keys, "No keys: `nbdcrypt grant create` makes the default key, `nbdcrypt key create ALIAS` one of your own.",
				"ALIAS STATE VERSION CREATED ID", func(k control.Key) []string {
					return []string{k.Alias, stateAndDate(k), strconv.Itoa(k.Version), moment(k.Created), k.ID}
				})
		}),
	}
}

// stateAndDate is a key's state, and when it ends.
func stateAndDate(k control.Key) string {
	if k.DeletionDate != nil {
		return k.State + " on " + k.DeletionDate.UTC().Format(time.DateOnly)
	}
	return k.State
}

func printKey(w io.Writer, k control.Key) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "alias\t%s\n", k.Alias)
		fmt.Fprintf(t, "id\t%s\n", k.ID)
		fmt.Fprintf(t, "project\t%s\n", k.Project)
		fmt.Fprintf(t, "state\t%s\n", k.State)
		fmt.Fprintf(t, "kind\t%s, %s\n", map[bool]string{true: "default key", false: "key of your own"}[k.Default], originWord(k.Origin))
		fmt.Fprintf(t, "version\t%d\n", k.Version)
		fmt.Fprintf(t, "created\t%s\n", moment(k.Created))
		if k.DeletionDate != nil {
			fmt.Fprintf(t, "deletion\t%s\n", moment(*k.DeletionDate))
		}
		if k.Expires != nil {
			fmt.Fprintf(t, "expires\t%s\n", moment(*k.Expires))
		}
		if k.RotationDays != nil {
			fmt.Fprintf(t, "rotation\tevery %s\n", count(*k.RotationDays, "day", "days"))
		}
		if k.Description != "" {
			fmt.Fprintf(t, "description\t%s\n", k.Description)
		}
		for _, name := range slices.Sorted(maps.Keys(k.Tags)) {
			fmt.Fprintf(t, "tag\t%s=%s\n", name, k.Tags[name])
		}
	})
}

// originWord says where a key's material comes from.
func originWord(origin string) string {
	if origin == "generated" {
		return "made here"
	}
	return origin
}
