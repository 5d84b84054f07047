package cli

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) backupExport() *cobra.Command {
	var resume bool
	cmd := &cobra.Command{
		Use: "export BACKUP FILE", Short: "Write a backup's file to FILE, or to stdout",
		Long: `Write a backup's file to a new FILE, or to stdout where FILE is -: what the daemon has, with the data key as it is wrapped now. It needs no key, and what is
written holds no plaintext of an encrypted disk. An incremental backup is of use with all that it stands on alone: export those too.

With --resume it goes on with a FILE that an export before left half written; then all of FILE is verified.`,
		Example:           "  nbdcrypt backup export db1-monday /media/safe/db1-monday.nbdbackup\n  nbdcrypt backup export db1-monday - | rclone rcat remote:db1-monday.nbdbackup",
		Args:              wants("BACKUP", "FILE"),
		ValidArgsFunction: a.completeExport,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			stayOnBrokenPipe()
			if args[1] != "-" {
				return a.exportBackup(cmd, args[0], args[1], resume)
			}
			if resume {
				return usage(cmd, "--resume needs a FILE: what went to stdout before is not known")
			}
			if a.isTerminal(cmd.OutOrStdout()) {
				return usage(cmd, "a backup is nothing to look at: send stdout to a file or a program")
			}
			return a.sendBackup(cmd, args[0], 0, func(int64) (io.Writer, error) { return cmd.OutOrStdout(), nil })
		}),
	}
	cmd.Flags().BoolVar(&resume, "resume", false, "go on with a FILE that is half written")
	return cmd
}

// completeExport completes a backup, and then a file.
func (a *app) completeExport(cmd *cobra.Command, args []string, word string) ([]string, cobra.ShellCompDirective) {
	if len(args) == 1 {
		return nil, cobra.ShellCompDirectiveDefault
	}
	return a.completeBackup(cmd, args, word)
}

// sendBackup has the daemon send a backup from a byte on.
func (a *app) sendBackup(cmd *cobra.Command, name string, from int64, begin func(from int64) (io.Writer, error)) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	m := a.meter(cmd)
	defer m.start()()
	return client.BackupExport(cmd.Context(), name, from, func(size, from int64) (io.Writer, error) {
		w, err := begin(from)
		return &counted{w, m, control.Job{Verb: "backup export", Resource: name, Unit: "bytes", Done: from, Total: size}}, err
	})
}

// exportBackup writes a file. One that is not whole stays, for --resume to go on with; where nothing was sent none does.
func (a *app) exportBackup(cmd *cobra.Command, name, path string, resume bool) error {
	open, from, signer := newFile, int64(0), ""
	if resume {
		open = func(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR, 0) }
	}
	file, err := open(path)
	if err != nil {
		return fileRefusal(path, err)
	}
	defer file.Close()
	if resume {
		if from, signer, err = a.partOf(cmd, name, file); err != nil {
			return err
		}
	}
	begun := false
	err = a.sendBackup(cmd, name, from, func(from int64) (io.Writer, error) {
		begun = true
		_, err := file.Seek(from, io.SeekStart)
		return file, errors.Join(err, file.Truncate(from))
	})
	switch {
	case err != nil && !begun && !resume:
		return errors.Join(err, os.Remove(path))
	case err != nil && begun:
		err = refusal.New(refusal.Failed, "run it again with --resume, which goes on where it was", "%s is half written: %w", path, err)
	}
	if err == nil {
		err = errors.Join(file.Sync(), syncDir(filepath.Dir(path)))
	}
	if err == nil && resume {
		err = a.verifyExport(cmd, path, signer)
	}
	return fileRefusalOr(path, err)
}

func fileRefusalOr(path string, err error) error {
	if err == nil {
		return nil
	}
	return fileRefusal(path, err)
}

// partOf tells how much of a backup a file has, and which key signed that backup, which may be another store's. A file of something else is refused.
func (a *app) partOf(cmd *cobra.Command, name string, file *os.File) (from int64, signer string, err error) {
	b, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Backup, error) { return c.BackupShow(ctx, name) })
	if err != nil {
		return 0, "", err
	}
	info, err := file.Stat()
	if err != nil || info.Size() < backup.HeaderSize {
		return 0, b.PublicKey, err // from the beginning
	}
	head := make([]byte, backup.HeaderSize)
	if _, err := file.ReadAt(head, 0); err != nil {
		return 0, "", err
	}
	if h, err := backup.DecodeHeader(head); err != nil || h.ID.String() != b.ID || h.Length() != b.Length {
		return 0, "", refusal.New(refusal.Busy, "choose another name, or remove it first", "%s is no part of backup %s", file.Name(), b.Name)
	}
	return info.Size(), b.PublicKey, nil
}

// verifyExport reads a file that was put together of two transfers.
func (a *app) verifyExport(cmd *cobra.Command, path, signer string) error {
	public, err := base64.StdEncoding.DecodeString(signer)
	if err != nil {
		return err
	}
	m := a.meter(cmd)
	defer m.start()()
	_, err = verifyBackupFile(cmd, path, ed25519.PublicKey(public), m)
	return err
}
