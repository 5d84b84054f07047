package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) projects() *cobra.Command {
	return group("project", "Projects, which disks, keys and rights belong to",
		`A project has disks, keys and users of its own; what somebody may do in one he may not do in another. The project default is always
there. Root, the daemon's user and the security administrators of the project default make projects; who makes one is its security
administrator. Other commands are told with --project which one they are about.`,
		"  nbdcrypt project create shop\n  nbdcrypt role grant alice user --project shop\n  nbdcrypt project set shop --encrypt-by-default on",
		a.projectCreate(), a.projectList(), a.projectShow(), a.projectSet(), a.projectDelete())
}

func (a *app) projectCreate() *cobra.Command {
	return &cobra.Command{
		Use: "create P", Short: "Make a project",
		Long: `Make a project under a name of letters, digits and . _ - that no other has. Before it can use encryption the key store's rights have to
be granted to it.`,
		Example: "  nbdcrypt project create shop\n  nbdcrypt grant create --project shop",
		Args:    wants("P"),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneProject(cmd, func(ctx context.Context, c *control.Client) (control.Project, error) {
				return c.ProjectCreate(ctx, args[0])
			})
		}),
	}
}

func (a *app) projectList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the projects that you may see",
		Long:    "List the projects in which you have a role; for who may make projects these are all.",
		Example: "  nbdcrypt project list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			projects, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Project, error) { return c.ProjectList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, projects, "You have a role in no project: ask an administrator for one.", "NAME ENCRYPTION BY-DEFAULT DEFAULT-KEY CREATED",
				func(p control.Project) []string {
					return []string{p.Name, grantedWord(p.Granted), onOff(p.EncryptByDefault), defaultKeyOf(p), maybeMoment(p.Created)}
				})
		}),
	}
}

func (a *app) projectShow() *cobra.Command {
	return &cobra.Command{
		Use: "show P", Short: "Show a project",
		Long:              "Show whether a project may use encryption, and what its disks are about which nobody says a word.",
		Example:           "  nbdcrypt project show shop",
		Args:              wants("P"),
		ValidArgsFunction: a.completeProject,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneProject(cmd, func(ctx context.Context, c *control.Client) (control.Project, error) {
				return c.ProjectShow(ctx, args[0])
			})
		}),
	}
}

func (a *app) projectSet() *cobra.Command {
	var byDefault, key string
	cmd := &cobra.Command{
		Use: "set P", Short: "Change what new disks of a project are",
		Long: `Have disks encrypted that are made without --encrypted and --plain, and choose the key for those that name none. Both are for disks that
are made from now on; those that are there stay as they are. evs/default as the default key is what it was at first.`,
		Example:           "  nbdcrypt project set shop --encrypt-by-default on\n  nbdcrypt project set shop --default-key payroll",
		Args:              wants("P"),
		ValidArgsFunction: a.completeProject,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			set, err := projectWish(cmd, byDefault, key)
			if err != nil {
				return err
			}
			return a.oneProject(cmd, func(ctx context.Context, c *control.Client) (control.Project, error) {
				return c.ProjectSet(ctx, args[0], set)
			})
		}),
	}
	cmd.Flags().StringVar(&byDefault, "encrypt-by-default", "", "on or off")
	cmd.Flags().StringVar(&key, "default-key", "", "the key of disks that name none")
	_ = cmd.RegisterFlagCompletionFunc("encrypt-by-default", cobra.FixedCompletions([]string{"on", "off"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("default-key", a.completeKeyOf)
	return cmd
}

// projectWish is what the flags of project set say.
func projectWish(cmd *cobra.Command, byDefault, key string) (set control.ProjectSet, err error) {
	if cmd.Flags().Changed("encrypt-by-default") {
		on := byDefault == "on"
		if !on && byDefault != "off" {
			return set, usage(cmd, "--encrypt-by-default %q is neither on nor off", byDefault)
		}
		set.EncryptByDefault = &on
	}
	if cmd.Flags().Changed("default-key") {
		if key == "" {
			return set, usage(cmd, "--default-key is empty")
		}
		set.DefaultKey = &key
	}
	if set == (control.ProjectSet{}) {
		return set, usage(cmd, "give --encrypt-by-default or --default-key")
	}
	return set, nil
}

func (a *app) projectDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete P", Short: "Delete an empty project",
		Long: `Delete a project that has no disks, servers, scaling configurations and keys of its own left. Everybody's roles in it go, and its default key, which nothing is
under, is destroyed. This asks first, unless --yes is given.`,
		Example:           "  nbdcrypt project delete shop --yes",
		Args:              wants("P"),
		ValidArgsFunction: a.completeProject,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.ProjectDelete(ctx, args[0], yes)
			})
			if err == nil {
				a.say(cmd, "project %s is deleted", args[0])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) oneProject(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Project, error)) error {
	p, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	a.warn(cmd, p.Warnings)
	return a.result(cmd, p, func(w io.Writer) {
		table(w, func(t io.Writer) {
			fmt.Fprintf(t, "name\t%s\n", p.Name)
			fmt.Fprintf(t, "encryption\t%s\n", grantedWord(p.Granted))
			fmt.Fprintf(t, "by default\t%s\n", map[bool]string{true: "disks are encrypted", false: "disks are plain"}[p.EncryptByDefault])
			fmt.Fprintf(t, "default key\t%s\n", defaultKeyOf(p))
			if p.Created != nil {
				fmt.Fprintf(t, "created\t%s by %s\n", moment(*p.Created), p.By)
			}
		})
	})
}

func grantedWord(granted bool) string {
	return map[bool]string{true: "granted", false: "not granted"}[granted]
}

func onOff(on bool) string { return map[bool]string{true: "on", false: "off"}[on] }

// defaultKeyOf names the default key of a project; a state other than Enabled is worth a word, since no disk can be made in it.
func defaultKeyOf(p control.Project) string {
	switch k := p.DefaultKey; {
	case k == nil:
		return "none yet"
	case k.Alias == "":
		return k.ID + " (" + k.State + ")"
	case k.State != "Enabled":
		return k.Alias + " (" + k.State + ")"
	default:
		return k.Alias
	}
}
