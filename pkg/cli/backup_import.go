package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"sync/atomic"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) backupImport() *cobra.Command {
	var public string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Take a backup back from FILE, or from stdin",
		Long: `Send a backup's file to the daemon, from stdin where FILE is -. It counts once all of it is there and was verified: signed by this store, or by the one whose public
key --public-key names. Interrupted, the same command goes on where it was, for a week. A backup of an encrypted disk of another store can be verified and
exported here, but not be made a disk: its key is not here.`,
		Example: "  nbdcrypt backup import /media/safe/db1-monday.nbdbackup",
		Args:    wants("FILE"),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			offer := control.BackupOffer{}
			if cmd.Flags().Changed("public-key") {
				key, err := readPublicKey(public)
				if err != nil {
					return err
				}
				offer.Public = key
			}
			return a.oneBackup(cmd, func(ctx context.Context, c *control.Client) (control.Backup, error) {
				return a.importBackup(ctx, cmd, c, args[0], offer)
			})
		}),
	}
	publicKeyFlag(cmd, &public)
	return cmd
}

// importBackup asks what is there already, and sends the rest.
func (a *app) importBackup(ctx context.Context, cmd *cobra.Command, c *control.Client, path string, offer control.BackupOffer) (control.Backup, error) {
	r, size, done, err := openBackupFile(cmd, path)
	if err != nil {
		return control.Backup{}, err
	}
	defer done()
	offer.Header = make([]byte, backup.HeaderSize)
	if n, err := io.ReadFull(r, offer.Header); err != nil {
		return control.Backup{}, refusal.New(refusal.Damaged, "name a file that `nbdcrypt backup export` wrote", "%s ends at byte %d, inside of a backup's header: %w", path, n, err)
	}
	h, err := backup.DecodeHeader(offer.Header)
	if err != nil {
		return control.Backup{}, err
	}
	if path != "-" && size != h.Length() {
		return control.Backup{}, refusal.New(refusal.Damaged, "get it from another copy, or finish its export with --resume", "%s has %d bytes, where it should have %d", path, size, h.Length())
	}
	offered, err := c.BackupOffer(ctx, offer)
	if err != nil {
		return control.Backup{}, err
	}
	if offered.Have > 0 {
		a.say(cmd, "going on at byte %d", offered.Have)
	}
	rest, err := from(r, offer.Header, offered.Have)
	if err != nil {
		return control.Backup{}, err
	}
	var sent atomic.Int64
	b, err := c.BackupImport(ctx, offer, offered.Have, rest, func(n int64) {
		sent.Store(offered.Have + n)
		c.Tell(control.Job{Verb: "backup import", Resource: h.Name, Unit: "bytes", Done: offered.Have + n, Total: h.Length()})
	})
	if err != nil && ctx.Err() != nil && sent.Load() < h.Length() {
		return b, refusal.New(refusal.Failed, "run the command again within seven days: it goes on where it was",
			"interrupted: backup %s is not imported, but what came of it is kept", h.Name)
	}
	return b, err
}

// from is what comes from a byte on of a file whose header was read.
func from(r io.Reader, head []byte, at int64) (io.Reader, error) {
	if f, is := r.(*os.File); is {
		if _, err := f.Seek(at, io.SeekStart); err == nil { // else it is a pipe
			return f, nil
		}
	}
	r = io.MultiReader(bytes.NewReader(head), r)
	_, err := io.CopyN(io.Discard, r, at)
	return r, err
}
