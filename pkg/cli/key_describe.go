package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) keyCreate() *cobra.Command {
	var in control.KeyCreate
	var tags []string
	cmd := &cobra.Command{
		Use: "create ALIAS", Short: "Make a key",
		Long: `Make a key under an alias of letters, digits and : / _ - that no other key of the project has. It is Enabled. With --origin imported
it has no key material yet, and is Pending import until some is imported.`,
		Example: "  nbdcrypt key create payroll --description \"wages\" --tag team=hr\n  nbdcrypt key create payroll",
		Args:    wants("ALIAS"),
		RunE: runs(func(cmd *cobra.Command, args []string) (err error) {
			if in.Tags, err = parseTags(cmd, tags); err != nil {
				return err
			}
			in.Alias = args[0]
			return a.oneKey(cmd, func(ctx context.Context, c *control.Client) (control.Key, error) { return c.KeyCreate(ctx, in) })
		}),
	}
	cmd.Flags().StringVar(&in.Description, "description", "", "what it is for, in one line")
	tagFlag(cmd, &tags)
	cmd.Flags().StringVar(&in.Origin, "origin", "", "where its key material comes from: generated (the default) or imported")
	_ = cmd.RegisterFlagCompletionFunc("origin", cobra.FixedCompletions([]string{"generated", "imported"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) keyUpdate() *cobra.Command {
	var alias, description string
	var tags, untag []string
	cmd := &cobra.Command{
		Use: "update KEY", Short: "Change a key's alias, description or tags",
		Long: `Give a key another alias, another description, or other tags. What is under it stays under it. A default key can't be renamed. An empty
description removes it.`,
		Example:           "  nbdcrypt key update payroll --alias wages --tag team=hr --untag old",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			in := control.KeyUpdate{Untag: untag}
			var err error
			if in.Tags, err = parseTags(cmd, tags); err != nil {
				return err
			}
			if cmd.Flags().Changed("alias") {
				in.Alias = &alias
			}
			if cmd.Flags().Changed("description") {
				in.Description = &description
			}
			if in.Alias == nil && in.Description == nil && len(in.Tags)+len(in.Untag) == 0 {
				return usage(cmd, "nothing to change: say what with --alias, --description, --tag or --untag")
			}
			return a.oneKey(cmd, func(ctx context.Context, c *control.Client) (control.Key, error) {
				return c.KeyUpdate(ctx, args[0], in)
			})
		}),
	}
	cmd.Flags().StringVar(&alias, "alias", "", "another alias")
	cmd.Flags().StringVar(&description, "description", "", "what it is for, in one line")
	tagFlag(cmd, &tags)
	cmd.Flags().StringArrayVar(&untag, "untag", nil, "remove the tag of that name; may be repeated")
	return cmd
}

func tagFlag(cmd *cobra.Command, tags *[]string) {
	cmd.Flags().StringArrayVar(tags, "tag", nil, "a tag, as NAME=VALUE; may be repeated")
}

// parseTags reads NAME=VALUE; a value may hold more of these signs.
func parseTags(cmd *cobra.Command, list []string) (map[string]string, error) {
	tags := map[string]string{}
	for _, tag := range list {
		name, value, found := strings.Cut(tag, "=")
		if !found {
			return nil, usage(cmd, "%q is no tag: write NAME=VALUE", tag)
		}
		if _, twice := tags[name]; twice {
			return nil, usage(cmd, "tag %s is given twice", name)
		}
		tags[name] = value
	}
	return tags, nil
}
