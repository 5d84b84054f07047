package cli

import (
	"context"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// minSector is the smaller of the two sector sizes, maxSector the larger (docs/disk-format.md).
const (
	minSector = 512
	maxSector = 4096
)

// diskWish is what the flags of disk create say.
type diskWish struct {
	size, key        string
	encrypted, plain bool
	hideHoles        bool
	sector           int
}

func (a *app) diskCreate() *cobra.Command {
	var wish diskWish
	cmd := &cobra.Command{
		Use: "create NAME --size SIZE", Short: "Make a disk",
		Long: `Make an empty disk of exactly SIZE (10G is 10 GiB). It reads as zeros and takes space as it is written. Encrypted or plain
is chosen here, for good; a disk with --key is encrypted, and --encrypted without it takes the project's default key.

Clients are told which parts of a disk are holes, and so is who watches what they do: it shows how full the disk is. --hide-holes,
for good too, has all of the disk look like data. It costs: a client that copies the disk reads and sends all of it, and shows all its
space as used. It hides nothing on this host, where the segment files' allocated size tells who may look how much was written.`,
		Example: `  nbdcrypt disk create db1 --size 10G --encrypted
  nbdcrypt disk create db2 --size 1T --key payroll --sector-size 4096
  nbdcrypt disk create scratch --size 500M --plain
  nbdcrypt disk create quiet --size 10G --encrypted --hide-holes`,
		Args: wants("NAME"),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			disk, err := wish.disk(cmd, args[0])
			if err != nil {
				return err
			}
			return a.oneDisk(cmd, func(ctx context.Context, c *control.Client) (control.Disk, error) { return c.DiskCreate(ctx, disk) })
		}),
	}
	sizeFlag(cmd, &wish.size)
	flags := cmd.Flags()
	flags.BoolVar(&wish.encrypted, "encrypted", false, "encrypt the disk")
	flags.BoolVar(&wish.plain, "plain", false, "don't encrypt the disk")
	flags.StringVar(&wish.key, "key", "", "the key that the disk is under")
	flags.BoolVar(&wish.hideHoles, "hide-holes", false, "tell clients that all of the disk is data")
	flags.IntVar(&wish.sector, "sector-size", minSector, "512 or 4096")
	_ = cmd.RegisterFlagCompletionFunc("key", a.completeKey) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("sector-size", cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func sizeFlag(cmd *cobra.Command, size *string) {
	cmd.Flags().StringVar(size, "size", "", "the size: 10G, 512M, 1.5T or a number of bytes")
	_ = cmd.RegisterFlagCompletionFunc("size", cobra.NoFileCompletions) // the flag exists: it can't fail
}

func (w diskWish) disk(cmd *cobra.Command, name string) (control.DiskCreate, error) {
	disk := control.DiskCreate{Name: name, Key: w.key, HideHoles: w.hideHoles}
	if cmd.Flags().Changed("sector-size") {
		disk.SectorSize = w.sector
	}
	switch {
	case w.encrypted && w.plain:
		return disk, usage(cmd, "--encrypted and --plain exclude each other")
	case w.plain && w.key != "":
		return disk, usage(cmd, "--plain and --key exclude each other: a plain disk is under no key")
	case cmd.Flags().Changed("key") && w.key == "":
		return disk, usage(cmd, "--key is empty")
	case w.sector != minSector && w.sector != maxSector:
		return disk, usage(cmd, "--sector-size %d is neither %d nor %d", w.sector, minSector, maxSector)
	case !cmd.Flags().Changed("size"):
		return disk, usage(cmd, "--size is missing")
	}
	if encrypted := w.encrypted || w.key != ""; encrypted || w.plain {
		disk.Encrypted = &encrypted
	}
	var err error
	disk.Size, err = parseSize(cmd, w.size, int64(w.sector))
	return disk, err
}
