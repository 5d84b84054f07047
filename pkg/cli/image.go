package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) image() *cobra.Command {
	return group("image", "What disks are made from",
		`An image holds what a disk or a file held once, and never changes. Disks are made from it in an instant, with 'disk create --from-image';
they share what it holds and write to layers of their own. Names work wherever ids do.`,
		"  nbdcrypt image create golden --from-file debian.qcow2 --encrypted\n  nbdcrypt disk create web1 --from-image golden\n  nbdcrypt image list",
		a.imageCreate(), a.imageCopy(), a.imageList(), a.imageShow(), a.imageDelete())
}

func (a *app) imageList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the project's images",
		Long:    "List the images of the project with their sizes, keys and sources.",
		Example: "  nbdcrypt image list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			images, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Image, error) { return c.ImageList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, images, "No images: `nbdcrypt image create NAME --from-file FILE` makes one.",
				"NAME SIZE KEY STATUS SOURCE CREATED ID", func(i control.Image) []string {
					return []string{i.Name, humanSize(i.Size), keyOf(i.Encrypted, i.Key), i.Status, sourceOf(i.Source), moment(i.Created), i.ID}
				})
		}),
	}
}

func (a *app) imageShow() *cobra.Command {
	return &cobra.Command{
		Use: "show IMAGE", Short: "Show an image",
		Long:              "Show an image: its size, its key, and what it was made of.",
		Example:           "  nbdcrypt image show golden",
		Args:              wants("IMAGE"),
		ValidArgsFunction: a.completeImage,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.oneImage(cmd, func(ctx context.Context, c *control.Client) (control.Image, error) { return c.ImageShow(ctx, args[0]) })
		}),
	}
}

func (a *app) imageDelete() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "delete IMAGE", Short: "Delete an image",
		Long: `Delete an image. Disks that were made from it stay as they are, with as much of it as they need; so does what it was made of. Its key is
not needed. One that a scaling configuration makes servers of is refused. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt image delete golden --yes",
		Args:              wants("IMAGE"),
		ValidArgsFunction: a.completeImage,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			_, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (struct{}, error) {
				return struct{}{}, c.ImageDelete(ctx, args[0], yes)
			})
			if err == nil {
				a.say(cmd, "image %s is deleted", args[0])
			}
			return err
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func (a *app) oneImage(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Image, error)) error {
	i, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	a.warn(cmd, i.Warnings)
	return a.result(cmd, i, func(w io.Writer) { printImage(w, i) })
}

func printImage(w io.Writer, i control.Image) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "name\t%s\n", i.Name)
		fmt.Fprintf(t, "id\t%s\n", i.ID)
		fmt.Fprintf(t, "project\t%s\n", i.Project)
		fmt.Fprintf(t, "size\t%s\n", exactSize(i.Size))
		fmt.Fprintf(t, "sector size\t%d\n", i.SectorSize)
		fmt.Fprintf(t, "key\t%s\n", keyOf(i.Encrypted, i.Key))
		fmt.Fprintf(t, "status\t%s\n", i.Status)
		fmt.Fprintf(t, "source\t%s\n", sourceOf(i.Source))
		fmt.Fprintf(t, "created\t%s\n", moment(i.Created))
	})
}

// sourceOf tells what an image was made of. Of a file nobody keeps the name.
func sourceOf(s *control.DiskSource) string {
	switch {
	case s == nil:
		return "unknown"
	case s.Name == "":
		return "a " + s.Kind
	}
	return s.Kind + " " + s.Name
}

// completeImage completes the name of an image as the first argument, or as the value of --from-image.
func (a *app) completeImage(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 && cmd.Flag("from-image") == nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	return a.completeImageFlag(cmd, nil, "")
}

// completeImageFlag completes the name of an image, whatever arguments there are.
func (a *app) completeImageFlag(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	return complete(a, cmd, (*control.Client).ImageList, func(i control.Image) string { return i.Name + "\t" + humanSize(i.Size) })
}
