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
	shared           bool
	sector           int
	snapshot, image  string
	backup           string
	full             bool
}

func (a *app) diskCreate() *cobra.Command {
	var wish diskWish
	cmd := &cobra.Command{
		Use: "create NAME --size SIZE", Short: "Make a disk",
		Long: `Make an empty disk of exactly SIZE (10G is 10 GiB). It reads as zeros and takes space as it is written. Encrypted or plain
is chosen here, for good; a disk with --key is encrypted, and --encrypted without it takes the project's default key.

Clients are told which parts of a disk are holes, and so is who watches what they do: it shows how full the disk is. --hide-holes,
for good too, has all of the disk look like data. It costs: a client that copies the disk reads and sends all of it, and shows all its
space as used. It hides nothing on this host, where the segment files' allocated size tells who may look how much was written.

A disk made with --shared, for good, can be attached up to 16 times at once. Its attachments have one export, which takes care of no
more than any disk does: clients that write at a time need a cluster file system, or to agree on who writes where.

A disk made with --from-snapshot holds what the snapshot holds, from the first moment on and without copying: the two share it, and the disk writes to
a layer with a data key of its own. It is encrypted or plain as the snapshot is, under the same key, and of its size unless SIZE is larger. With --full it
copies all of that in the background, and needs the snapshot no more then; it can be used meanwhile. --from-image does the same with an image.

A disk made with --from-backup gets all that the backup holds, which is verified with all that it stands on before anything is written. It may be encrypted or
plain, under any key, with any sector size and larger; what is not said is as the backup has it.`,
		Example: `  nbdcrypt disk create db1 --size 10G --encrypted
  nbdcrypt disk create db2 --size 1T --key payroll --sector-size 4096
  nbdcrypt disk create scratch --size 500M --plain
  nbdcrypt disk create quiet --size 10G --encrypted --hide-holes
  nbdcrypt disk create quorum --size 1G --encrypted --shared
  nbdcrypt disk create trial --from-snapshot before-upgrade
  nbdcrypt disk create web1 --from-image golden --size 20G
  nbdcrypt disk create db1-again --from-backup db1-monday`,
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
	flags.BoolVar(&wish.shared, "shared", false, "let it be attached up to 16 times at once")
	flags.StringVar(&wish.snapshot, "from-snapshot", "", "the snapshot that the disk is to hold")
	flags.StringVar(&wish.image, "from-image", "", "the image that the disk is to hold")
	flags.StringVar(&wish.backup, "from-backup", "", "the backup that the disk is to hold")
	flags.BoolVar(&wish.full, "full", false, "copy all of what it is made from in the background")
	flags.IntVar(&wish.sector, "sector-size", minSector, "512 or 4096")
	_ = cmd.RegisterFlagCompletionFunc("key", a.completeKey) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("from-snapshot", a.completeSnapshot)
	_ = cmd.RegisterFlagCompletionFunc("from-image", a.completeImage)
	_ = cmd.RegisterFlagCompletionFunc("from-backup", a.completeBackup)
	_ = cmd.RegisterFlagCompletionFunc("sector-size", cobra.FixedCompletions([]string{"512", "4096"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func sizeFlag(cmd *cobra.Command, size *string) {
	cmd.Flags().StringVar(size, "size", "", "the size: 10G, 512M, 1.5T or a number of bytes")
	_ = cmd.RegisterFlagCompletionFunc("size", cobra.NoFileCompletions) // the flag exists: it can't fail
}

func (w diskWish) disk(cmd *cobra.Command, name string) (control.DiskCreate, error) {
	disk := control.DiskCreate{Name: name, Key: w.key, HideHoles: w.hideHoles, Shared: w.shared, FromSnapshot: w.snapshot, FromImage: w.image, FromBackup: w.backup, Full: w.full}
	made := w.snapshot != "" || w.image != "" || w.backup != ""
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
	case cmd.Flags().Changed("from-snapshot") && w.snapshot == "":
		return disk, usage(cmd, "--from-snapshot is empty")
	case cmd.Flags().Changed("from-image") && w.image == "":
		return disk, usage(cmd, "--from-image is empty")
	case cmd.Flags().Changed("from-backup") && w.backup == "":
		return disk, usage(cmd, "--from-backup is empty")
	case w.snapshot != "" && w.image != "", w.backup != "" && (w.snapshot != "" || w.image != ""):
		return disk, usage(cmd, "--from-snapshot, --from-image and --from-backup exclude each other")
	case w.full && (!made || w.backup != ""):
		return disk, usage(cmd, "--full needs --from-snapshot or --from-image: there is nothing else to copy")
	case !made && !cmd.Flags().Changed("size"):
		return disk, usage(cmd, "--size is missing")
	}
	if encrypted := w.encrypted || w.key != ""; encrypted || w.plain {
		disk.Encrypted = &encrypted
	}
	if !cmd.Flags().Changed("size") {
		return disk, nil // that of what it is made from
	}
	var err error
	disk.Size, err = parseSize(cmd, w.size, int64(w.sector))
	return disk, err
}
