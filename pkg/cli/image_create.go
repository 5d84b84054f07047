package cli

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/imagefile"
)

// imageWish is what the flags of image create say.
type imageWish struct {
	disk, server      string
	file, format, key string
	encrypted, plain  bool
	sector            int
}

func (a *app) imageCreate() *cobra.Command {
	var wish imageWish
	cmd := &cobra.Command{
		Use: "create NAME", Short: "Make an image of a disk or a file",
		Long: `Make an image.

With --from-disk it holds what a disk, attached or not, holds at this moment. That takes no time and nothing is copied; the image is encrypted or
plain as the disk is, and under its key. --from-server does the same with a server's system disk, whether or not the server runs.

With --from-file it holds what a file holds: a raw file, block device or qcow2 file, or with qemu-nbd (package qemu-utils) a vmdk, vhdx or vdi
file. FILE - is standard input, with the bytes of the disk. The file is read here, by whoever runs the command, and sent to the daemon, which encrypts
it; nothing of it is written to any other file. Holes stay holes. An image that stands on another file, or keeps its data in one, is refused, and
so is one that is encrypted already. The image has the size of the disk in the file, rounded up to whole sectors with zeros. Encrypted or plain, the key and the
sector size are chosen as for a disk.

If it is interrupted, nothing of the image stays.`,
		Example: `  nbdcrypt image create golden --from-disk db1
  nbdcrypt image create golden2 --from-server web1
  nbdcrypt image create debian --from-file debian.qcow2 --key payroll
  nbdcrypt image create old --from-file server.vmdk --format vmdk --encrypted
  nbdcrypt image create piped --from-file - --plain`,
		Args: wants("NAME"),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := wish.check(cmd); err != nil {
				return err
			}
			if wish.file == "" {
				return a.oneImage(cmd, func(ctx context.Context, c *control.Client) (control.Image, error) {
					return c.ImageCreate(ctx, control.ImageCreate{Name: args[0], Disk: wish.disk, Server: wish.server, Encrypted: wish.choice(), Key: wish.key})
				})
			}
			return a.sendImage(cmd, args[0], wish)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&wish.disk, "from-disk", "", "the disk that it is made of")
	flags.StringVar(&wish.server, "from-server", "", "the server whose system disk it is made of")
	flags.StringVar(&wish.file, "from-file", "", "the file that it is made of; - is standard input")
	flags.StringVar(&wish.format, "format", imagefile.Auto, "the file's format: "+strings.Join(imagefile.Formats, ", "))
	flags.IntVar(&wish.sector, "sector-size", minSector, "512 or 4096, where it is made of a file")
	encryptionFlags(cmd, &wish.encrypted, &wish.plain, &wish.key, "image")
	_ = cmd.RegisterFlagCompletionFunc("from-disk", func(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
		return a.completeDisk(cmd, nil, typed)
	}) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("from-server", a.completeServerFlag)
	_ = cmd.RegisterFlagCompletionFunc("sector-size", cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions(imagefile.Formats, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.RegisterFlagCompletionFunc("key", a.completeKey)
	return cmd
}

// encryptionFlags are those that choose whether something new is encrypted, and under which key.
func encryptionFlags(cmd *cobra.Command, encrypted, plain *bool, key *string, what string) {
	flags := cmd.Flags()
	flags.BoolVar(encrypted, "encrypted", false, "encrypt the "+what)
	flags.BoolVar(plain, "plain", false, "don't encrypt the "+what)
	flags.StringVar(key, "key", "", "the key that the "+what+" is under")
}

// checkEncryption refuses flags that exclude each other.
func checkEncryption(cmd *cobra.Command, encrypted, plain bool, key, what string) error {
	switch {
	case encrypted && plain:
		return usage(cmd, "--encrypted and --plain exclude each other")
	case plain && key != "":
		return usage(cmd, "--plain and --key exclude each other: a plain %s is under no key", what)
	case cmd.Flags().Changed("key") && key == "":
		return usage(cmd, "--key is empty")
	}
	return nil
}

func (w imageWish) check(cmd *cobra.Command) error {
	if err := checkEncryption(cmd, w.encrypted, w.plain, w.key, "image"); err != nil {
		return err
	}
	switch {
	case len(slices.DeleteFunc([]string{w.disk, w.server, w.file}, func(from string) bool { return from == "" })) != 1:
		return usage(cmd, "say what the image is made of: --from-disk DISK, --from-server SERVER or --from-file FILE")
	case w.file == "" && cmd.Flags().Changed("format"):
		return usage(cmd, "--format is of a file, and a disk has none")
	case w.file == "" && cmd.Flags().Changed("sector-size"):
		return usage(cmd, "--sector-size is for a file: an image of a disk has that of the disk")
	case w.sector != minSector && w.sector != maxSector:
		return usage(cmd, "--sector-size %d is neither %d nor %d", w.sector, minSector, maxSector)
	}
	return nil
}

// choice is whether it is to be encrypted, nil where that was left open.
func (w imageWish) choice() *bool {
	encrypted := w.encrypted || w.key != ""
	if !encrypted && !w.plain {
		return nil
	}
	return &encrypted
}

// sendImage reads the file and sends it. What is wrong with it is said before anything is made.
func (a *app) sendImage(cmd *cobra.Command, name string, wish imageWish) error {
	if err := a.hide(); err != nil { // what is read must not be in a core file
		return err
	}
	file, err := imagefile.Open(cmd.Context(), wish.file, wish.format, cmd.InOrStdin())
	if err != nil {
		return err
	}
	defer file.Close()
	return a.oneImage(cmd, func(ctx context.Context, c *control.Client) (control.Image, error) {
		image, err := uploadImage(ctx, c, name, wish, file)
		image.Warnings = append(image.Warnings, file.Notes...)
		return image, err
	})
}
