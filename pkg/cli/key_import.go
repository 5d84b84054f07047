package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// What key import --prepare writes.
const (
	wrappingKeyFile = "wrapping-key.pem"
	importTokenFile = "import-token"
)

// maxImportFile is more than a token or wrapped key material has; a file that is longer is another one.
const maxImportFile = 16 << 10

// importWish is what the flags of key import say.
type importWish struct{ prepare, token, material, expires string }

func (a *app) keyImport() *cobra.Command {
	var wish importWish
	cmd := &cobra.Command{
		Use: "import KEY", Short: "Import key material into a key",
		Long: `Import 32 bytes of key material that were made elsewhere into a key that was made with --origin imported, in two steps. --prepare writes
wrapping-key.pem and import-token into a directory; they are good for 24 hours, and only the newest are. Whoever has the key material wraps
it with the wrapping key (RSA-OAEP with SHA-256), so that it is never in clear on its way; --token and --material bring it in:

  openssl pkeyutl -encrypt -pubin -inkey wrapping-key.pem -pkeyopt rsa_padding_mode:oaep \
    -pkeyopt rsa_oaep_md:sha256 -in material.bin -out material.wrapped

Keep the key material: a key that has had some takes no other, and after key delete-material, or once it has expired, nothing else makes the
disks under the key attach again. With --expires it is deleted at that time; importing the same bytes again sets another time, or none.`,
		Example: "  nbdcrypt key import theirs --prepare .\n" +
			"  nbdcrypt key import theirs --token import-token --material material.wrapped --expires 2027-12-31T00:00:00Z",
		Args:              wants("KEY"),
		ValidArgsFunction: a.completeKey,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("prepare") {
				return a.prepareImport(cmd, args[0], wish)
			}
			in, err := wish.read(cmd)
			if err != nil {
				return err
			}
			return a.oneKey(cmd, func(ctx context.Context, c *control.Client) (control.Key, error) {
				return c.KeyImport(ctx, args[0], in)
			})
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&wish.prepare, "prepare", "", "write wrapping-key.pem and import-token into this directory")
	flags.StringVar(&wish.token, "token", "", "the file import-token that --prepare wrote")
	flags.StringVar(&wish.material, "material", "", "the file with the wrapped key material")
	flags.StringVar(&wish.expires, "expires", "", "delete the key material at this time, such as 2027-12-31T00:00:00Z")
	_ = cmd.MarkFlagDirname("prepare") // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("expires", cobra.NoFileCompletions)
	return cmd
}

// read reads the files that the flags name.
func (w importWish) read(cmd *cobra.Command) (in control.KeyImport, err error) {
	if w.token == "" || w.material == "" {
		return in, usage(cmd, "give --prepare DIR, or --token FILE and --material FILE")
	}
	if cmd.Flags().Changed("expires") {
		if w.expires == "" {
			return in, usage(cmd, "--expires is empty; without it the key material is never deleted on its own")
		}
		at, err := time.Parse(time.RFC3339, w.expires)
		if err != nil {
			return in, usage(cmd, "--expires %s is no time such as 2027-12-31T00:00:00Z", w.expires)
		}
		in.Expires = &at
	}
	token, err := readShort(w.token)
	if err != nil {
		return in, err
	}
	in.Token = string(token)
	in.Material, err = readShort(w.material)
	return in, err
}

func readShort(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, refusal.New(refusal.Usage, "name a file that is there and may be read", "%w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxImportFile+1))
	if err == nil && len(b) > maxImportFile {
		err = errors.New("it is longer than any that could be meant")
	}
	if err != nil {
		return nil, refusal.New(refusal.Usage, "see that it is the right file", "reading %s: %w", path, err)
	}
	return b, nil
}

// Prepared is what key import --prepare prints: where it wrote what, and how long that is good.
type Prepared struct {
	Key         control.Key `json:"key"`
	WrappingKey string      `json:"wrapping_key"`
	Token       string      `json:"token"`
	Until       time.Time   `json:"until"`
}

// prepareImport asks for the parameters once there are files for them: with each asking those of before are void.
func (a *app) prepareImport(cmd *cobra.Command, key string, wish importWish) error {
	if wish.prepare == "" || wish.token+wish.material+wish.expires != "" {
		return usage(cmd, "--prepare DIR goes without --token, --material and --expires")
	}
	p := Prepared{WrappingKey: filepath.Join(wish.prepare, wrappingKeyFile), Token: filepath.Join(wish.prepare, importTokenFile)}
	errDir := os.Mkdir(wish.prepare, 0o700)
	if errDir != nil && !errors.Is(errDir, os.ErrExist) {
		return fileRefusal(wish.prepare, errDir)
	}
	files, err := newFiles(p.WrappingKey, p.Token)
	if err != nil {
		return err
	}
	defer func() {
		files.drop()
		if errDir == nil && !files.kept {
			_ = os.Remove(wish.prepare) // which was made for them
		}
	}()
	got, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.ImportParameters, error) {
		return c.KeyPrepare(ctx, key)
	})
	if err != nil {
		return err
	}
	p.Key, p.Until = got.Key, got.Until
	if err := errors.Join(files.write(0, []byte(got.WrappingKey)), files.write(1, []byte(got.Token))); err != nil {
		return refusal.New(refusal.Failed, "make room, or name another directory, then prepare it anew", "%w", err)
	}
	files.keep()
	if err := a.result(cmd, p, func(w io.Writer) { printPrepared(w, p) }); err != nil {
		return err
	}
	a.say(cmd, "wrap the 32 bytes with: openssl pkeyutl -encrypt -pubin -inkey %s -pkeyopt rsa_padding_mode:oaep -pkeyopt rsa_oaep_md:sha256 -in FILE -out material.wrapped",
		p.WrappingKey)
	return nil
}

func printPrepared(w io.Writer, p Prepared) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "key\t%s\n", p.Key.Alias)
		fmt.Fprintf(t, "wrapping key\t%s\n", p.WrappingKey)
		fmt.Fprintf(t, "import token\t%s\n", p.Token)
		fmt.Fprintf(t, "good until\t%s\n", moment(p.Until))
	})
}
