package cli

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/backup"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) backupVerify() *cobra.Command {
	var public string
	cmd := &cobra.Command{
		Use: "verify BACKUP | FILE...", Short: "Prove that a backup is whole, and who made it",
		Long: `Read a backup and all that it stands on, and hold every byte against the signed hashes: one that was changed, is missing or is too much is found, and
its place is named (exit code 8). The key of the data is not needed.

With --public-key files that were exported are verified here, without a daemon and without a secret, wherever they are; - is stdin. The public key is what
'backup key' prints where they were made: get it by a way that you trust, since a forger can sign too. Of a chain name all files, in any order: an
incremental backup whose parent is not among them is verified by itself, and the parent is named.`,
		Example:           "  nbdcrypt backup verify db1-monday\n  nbdcrypt backup verify /media/safe/db1-*.nbdbackup --public-key store.pem",
		ValidArgsFunction: a.completeBackup,
		Args: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) > 1 && cmd.Flags().Changed("public-key"):
				return nil
			case len(args) > 1:
				return usage(cmd, "files are verified with --public-key, and of the daemon's backups one at a time")
			}
			return wants("BACKUP")(cmd, args)
		},
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			verified, err := a.verifyBackups(cmd, public, args)
			if err != nil {
				return err
			}
			verified.Missing = control.List(verified.Missing)
			return a.result(cmd, verified, func(w io.Writer) { printVerified(w, verified) })
		}),
	}
	publicKeyFlag(cmd, &public)
	return cmd
}

func publicKeyFlag(cmd *cobra.Command, into *string) {
	cmd.Flags().StringVar(into, "public-key", "", "the public key (PEM) that has to have signed it")
	_ = cmd.MarkFlagFilename("public-key") // the flag exists: it can't fail
}

func (a *app) verifyBackups(cmd *cobra.Command, public string, args []string) (control.BackupVerified, error) {
	if !cmd.Flags().Changed("public-key") {
		v, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.BackupVerified, error) {
			return c.BackupVerify(ctx, args[0])
		})
		if refusal.CodeOf(err) == refusal.NotFound && isFile(args[0]) {
			return v, refusal.New(refusal.NotFound, "to verify the file "+args[0]+" name the public key with --public-key", "%w", err)
		}
		return v, err
	}
	pinned, err := readPublicKey(public)
	if err != nil {
		return control.BackupVerified{}, err
	}
	m := a.meter(cmd)
	defer m.start()()
	var list []backup.Verified
	for _, path := range args {
		v, err := verifyBackupFile(cmd, path, pinned, m)
		if err != nil {
			return control.BackupVerified{}, err
		}
		list = append(list, v)
	}
	return chained(list)
}

func isFile(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// readPublicKey reads a key as `backup key` prints it.
func readPublicKey(path string) (ed25519.PublicKey, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, refusal.New(refusal.NotFound, "name the file that `nbdcrypt backup key --out FILE` wrote", "the public key can't be read: %w", err)
	}
	if block, _ := pem.Decode(text); block != nil {
		key, err := x509.ParsePKIXPublicKey(block.Bytes)
		if public, is := key.(ed25519.PublicKey); err == nil && is {
			return public, nil
		}
	}
	return nil, refusal.New(refusal.Usage, "name the file that `nbdcrypt backup key --out FILE` wrote", "%s holds no Ed25519 public key in PEM", path)
}

// openBackupFile opens a file, or stdin for -.
func openBackupFile(cmd *cobra.Command, path string) (r io.Reader, size int64, done func(), err error) {
	if path == "-" {
		return cmd.InOrStdin(), 0, func() {}, nil
	}
	f, err := os.Open(path)
	if err != nil {
		code := refusal.Failed
		if errors.Is(err, os.ErrNotExist) {
			code = refusal.NotFound
		}
		return nil, 0, nil, refusal.New(code, "name a file that `nbdcrypt backup export` wrote", "the backup can't be read: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		return nil, 0, nil, errors.Join(err, f.Close())
	}
	return f, info.Size(), func() { _ = f.Close() }, nil // it was only read
}

func verifyBackupFile(cmd *cobra.Command, path string, pinned ed25519.PublicKey, m *meter) (v backup.Verified, err error) {
	r, _, done, err := openBackupFile(cmd, path)
	if err != nil {
		return v, err
	}
	defer done()
	v, err = backup.Verify(cmd.Context(), r, pinned, func(done, total int64) {
		m.news(control.Job{Verb: "backup verify", Resource: path, Unit: "bytes", Done: done, Total: total})
	})
	var refused *refusal.Error
	switch {
	case cmd.Context().Err() != nil:
		return v, refusal.New(refusal.Failed, "", "interrupted")
	case errors.As(err, &refused):
		return v, refusal.New(refused.Code, refused.Hint, "%s: %w", path, err)
	}
	return v, err
}

// chained holds each backup against the one that it stands on, where that is among them, and names those that are not.
func chained(list []backup.Verified) (out control.BackupVerified, err error) {
	for _, child := range list {
		out.Backups = append(out.Backups, verifiedView(child))
		if !child.Incremental() {
			continue
		}
		found := false
		for _, parent := range list {
			if parent.ID == child.Parent {
				found = true
				if err := backup.Follows(child, parent); err != nil {
					return out, err
				}
			}
		}
		if !found {
			out.Missing = append(out.Missing, control.BackupOf{ID: child.Parent.String()})
		}
	}
	return out, nil
}

func verifiedView(v backup.Verified) control.Backup {
	b := control.Backup{ID: v.ID.String(), Name: v.Name, Project: v.Project, Disk: control.BackupOf{ID: v.Disk.String(), Name: v.DiskName}, Size: v.Size,
		SectorSize: v.SectorSize, Encrypted: v.Encrypted, Status: "verified", Created: v.Taken, Depth: v.Depth, Data: v.Data, Length: v.Length(), Store: v.Store.String(),
		Manifest: v.Manifest.String(), PublicKey: base64.StdEncoding.EncodeToString(v.Trailer.Public)}
	if v.Incremental() {
		b.Parent = &control.BackupOf{ID: v.Parent.String()}
	}
	return b
}

func printVerified(w io.Writer, v control.BackupVerified) {
	for _, b := range v.Backups {
		fmt.Fprintf(w, "%s is whole: %s, of disk %s, of %s, %s\n  manifest %s\n", b.Name, kindOf(b), b.Disk.Name, moment(b.Created), exactSize(b.Length), b.Manifest)
	}
	for _, p := range v.Missing {
		fmt.Fprintf(w, "backup %s, which one of them stands on, was not given\n", p.ID)
	}
}
