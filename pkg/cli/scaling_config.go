package cli

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) scalingConfig() *cobra.Command {
	return group("config", "How the servers of a group are made",
		`A scaling configuration holds an image, the machine, and for each disk its size, whether it is encrypted, and under which key. It never changes. Names work wherever ids do.`,
		"  nbdcrypt scaling config create web --from-server web1\n  nbdcrypt scaling config show web",
		a.configCreate(), a.configList(), a.configShow(), a.configDelete())
}

func (a *app) configCreate() *cobra.Command {
	var wish serverWish
	var server, image string
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make a scaling configuration of a server or an image",
		Long: `Make a scaling configuration.

With --from-server it has all that the server has: an image called NAME is made of its system disk, encrypted under the system disk's key or plain as that is, and goes with the
configuration; data disks will be empty, of the same sizes, and encrypted under the same keys. Processors, memory and network may be chosen anew.

With --from-image the disks are said as for 'server create'. System disks share the image's data, so they are encrypted or plain as it is, under its key; for another choice make
another image first, with 'image copy'. The image can't be deleted while the configuration is there.

A key that can't be used is told now, not when servers are made.`,
		Example: `  nbdcrypt scaling config create web --from-server web1
  nbdcrypt scaling config create big --from-server web1 --cpus 4 --memory 8G
  nbdcrypt scaling config create lab --from-image golden --data-disk size=10G,encrypted,key=payroll`,
		Args: wants("NAME"),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			config := control.ConfigCreate{Name: args[0], Server: server, Image: image}
			if err := wish.config(cmd, &config); err != nil {
				return err
			}
			return a.oneConfig(cmd, func(ctx context.Context, c *control.Client) (control.ScalingConfig, error) {
				return c.ConfigCreate(ctx, config)
			})
		}),
	}
	cmd.Flags().StringVar(&server, "from-server", "", "the server that it is made of")
	cmd.Flags().StringVar(&image, "from-image", "", "the image that it is made of")
	_ = cmd.RegisterFlagCompletionFunc("from-server", a.completeServerFlag) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("from-image", a.completeImageFlag)
	a.serverFlags(cmd, &wish)
	return cmd
}

// config fills in what the flags say.
func (w serverWish) config(cmd *cobra.Command, c *control.ConfigCreate) error {
	if (c.Server == "") == (c.Image == "") {
		return usage(cmd, "say what it is made of: --from-server SERVER or --from-image IMAGE")
	}
	for _, name := range []string{"system-size", "encrypted", "plain", "key", "data-disk"} {
		if c.Server != "" && cmd.Flags().Changed(name) {
			return usage(cmd, "--%s goes with --from-image: of a server the disks are as they are", name)
		}
	}
	disks, machine, err := w.read(cmd)
	if err != nil {
		return err
	}
	c.System, c.Data, c.Machine = disks[0], disks[1:], machine
	return nil
}

func (a *app) configList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the project's scaling configurations",
		Long:    "List the scaling configurations of the project, with the key of the system disk.",
		Example: "  nbdcrypt scaling config list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			configs, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.ScalingConfig, error) {
				return c.ConfigList(ctx)
			})
			if err != nil {
				return err
			}
			return list(a, cmd, configs, "No scaling configurations: `nbdcrypt scaling config create NAME --from-server SERVER` makes one.",
				"NAME IMAGE KEY CPUS MEMORY DISKS CREATED ID", func(c control.ScalingConfig) []string {
					return []string{c.Name, c.Image.Name, systemKey(c), strconv.Itoa(c.CPUs), humanSize(c.Memory), strconv.Itoa(len(c.Disks)), moment(c.Created), c.ID}
				})
		}),
	}
}

func (a *app) configShow() *cobra.Command {
	return &cobra.Command{
		Use: "show CONFIG", Short: "Show a scaling configuration",
		Long:              "Show a scaling configuration: its image, its machine, and for each disk its size, whether it is encrypted, and under which key.",
		Example:           "  nbdcrypt scaling config show web",
		Args:              wants("CONFIG"),
		ValidArgsFunction: a.completeConfig,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneConfig(cmd, func(ctx context.Context, c *control.Client) (control.ScalingConfig, error) {
				return c.ConfigShow(ctx, args[0])
			})
		}),
	}
}

func (a *app) configDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete CONFIG", Short: "Delete a scaling configuration",
		Long: `Delete a scaling configuration that no group uses, and the image that was made for it. Servers that were made by it stay as they are. Asks first, unless
--yes is given.`,
		Example:           "  nbdcrypt scaling config delete web --yes",
		Args:              wants("CONFIG"),
		ValidArgsFunction: a.completeConfig,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.ConfigDelete(ctx, args[0], yes)
			})
			if err == nil {
				a.say(cmd, "scaling configuration %s is deleted", args[0])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) oneConfig(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.ScalingConfig, error)) error {
	c, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	a.warn(cmd, c.Warnings)
	return a.result(cmd, c, func(w io.Writer) { printConfig(w, c) })
}

func printConfig(w io.Writer, c control.ScalingConfig) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "name\t%s\n", c.Name)
		fmt.Fprintf(t, "id\t%s\n", c.ID)
		fmt.Fprintf(t, "project\t%s\n", c.Project)
		fmt.Fprintf(t, "image\t%s\n", c.Image.Name)
		if c.Source != nil {
			fmt.Fprintf(t, "source\t%s\n", sourceOf(c.Source))
		}
		printMachine(t, c.CPUs, c.Memory, c.Network)
		fmt.Fprintf(t, "created\t%s\n", moment(c.Created))
	})
	fmt.Fprintln(w)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "DISK\tSIZE\tSECTOR\tKEY")
		for _, d := range c.Disks {
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\n", d.Role, humanSize(d.Size), d.SectorSize, keyOf(d.Encrypted, d.Key))
		}
	})
}

// systemKey is what protects the system disks.
func systemKey(c control.ScalingConfig) string {
	for _, d := range c.Disks {
		if d.Role == control.SystemDisk {
			return keyOf(d.Encrypted, d.Key)
		}
	}
	return "unknown"
}
