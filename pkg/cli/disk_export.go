package cli

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) diskExport() *cobra.Command {
	var yes, ciphertext bool
	cmd := &cobra.Command{
		Use: "export DISK FILE --ciphertext", Short: "Write a disk into one encrypted file that dm-crypt opens",
		Long: `Write all of a disk, whatever layers it lies in, into one new file under one new key, and print that key in hex, in clear.
cryptsetup opens the file as plain dm-crypt (aes-xts-plain64), without nbdcrypt and whatever becomes of its key store. The disk must be
detached. The file has the size of the disk: holes are encrypted too. Asks first, unless --yes is given.`,
		Example:           "  nbdcrypt disk export db1 /media/safe/db1.img --ciphertext --yes --json > /media/safe2/db1.json",
		Args:              wants("DISK", "FILE"),
		ValidArgsFunction: a.completeDisk,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if !ciphertext {
				return usage(cmd, "only --ciphertext is there: for the data in clear attach the disk and copy it with nbdcopy")
			}
			if err := a.hide(); err != nil {
				return err
			}
			stayOnBrokenPipe()
			key, err := a.export(cmd, args[0], args[1], yes)
			if err != nil {
				return err
			}
			if err := a.result(cmd, key, func(w io.Writer) { printEscrow(w, key) }); err != nil {
				return errors.Join(err, os.Remove(args[1])) // nobody has the key to it
			}
			a.say(cmd, "open it with: cryptsetup open --type plain --cipher aes-xts-plain64 --key-size 512 --sector-size %d --key-file KEY %s NAME; KEY holds the 64 bytes",
				key.SectorSize, args[1])
			return nil
		}),
	}
	cmd.Flags().BoolVar(&ciphertext, "ciphertext", false, "write ciphertext, and print the key to it")
	yesFlag(cmd, &yes)
	return cmd
}

// export asks for a yes before a file is made; one that is not whole does not stay.
func (a *app) export(cmd *cobra.Command, disk, path string, yes bool) (control.Escrow, error) {
	key, err := a.exportTo(cmd, disk, path, yes)
	if yes || refusal.CodeOf(err) != refusal.Confirm {
		return key, err
	}
	if err := a.confirm(cmd, refusal.From(err)); err != nil {
		return key, err
	}
	return a.exportTo(cmd, disk, path, true)
}

func (a *app) exportTo(cmd *cobra.Command, disk, path string, yes bool) (key control.Escrow, err error) {
	client, err := a.client()
	if err != nil {
		return key, err
	}
	m := a.meter(cmd)
	defer m.start()()
	// Before the key is given out, since without a file nobody needs it.
	file, err := newFile(path)
	if err != nil {
		return key, err
	}
	err = client.DiskExport(cmd.Context(), disk, yes, func(k control.Escrow, size int64) (io.Writer, error) {
		key = k
		return &counted{file, m, control.Job{Verb: "disk export", Resource: disk, Unit: "bytes", Total: size}}, nil
	})
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return key, errors.Join(fileRefusal(path, err), os.Remove(path))
	}
	return key, syncDir(filepath.Dir(path))
}

// syncDir makes a new name durable.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("syncing %s: %w", path, err)
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// counted tells the meter what has been written.
type counted struct {
	io.Writer
	meter *meter
	job   control.Job
}

func (c *counted) Write(p []byte) (int, error) {
	n, err := c.Writer.Write(p)
	c.job.Done += int64(n)
	c.meter.news(c.job)
	return n, err
}
