package cli

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) slotAdd() *cobra.Command {
	return group("add", "Add a way to open the root key", `Add a slot. The root key stays the same, and so does everything under it. Each slot was opened once before it counts.`,
		"  nbdcrypt root slot add passphrase\n  nbdcrypt root slot add tpm2\n  nbdcrypt root slot add key-file",
		a.slotAddPassphrase(), a.slotAddKeyFile(), a.slotAddTPM(), a.slotAddCredential(), a.slotAddToken())
}

func (a *app) slotAddKeyFile() *cobra.Command {
	return &cobra.Command{
		Use: "key-file", Short: "Make the root key file again",
		Long: `Make the root key file again where it is missing, at the place that the daemon was started with: after a recovery, or to have a
daemon that opens by itself again.`,
		Example: "  nbdcrypt root slot add key-file",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			return a.printsSlot(cmd, func(ctx context.Context, c *control.Client) (control.Slot, error) { return c.SlotKeyFile(ctx) })
		}),
	}
}

// printsSlot makes a call that answers with a slot, and prints it.
func (a *app) printsSlot(cmd *cobra.Command, fn func(context.Context, *control.Client) (control.Slot, error)) error {
	slot, err := talk(a, cmd, fn)
	if err != nil {
		return err
	}
	return a.result(cmd, slot, func(w io.Writer) { printSlot(w, slot) })
}

func (a *app) slotAddTPM() *cobra.Command {
	ask := control.SlotTPMAdd{}
	cmd := &cobra.Command{
		Use: "tpm2", Short: "Let a TPM 2.0 open the root key at the daemon's start",
		Long: `Seal a secret by a TPM 2.0, which gives it out to this machine alone, and only while its registers (PCRs) are as they are now. It opens
by itself at the daemon's start. With sha256:7, the default, that is as long as Secure Boot stays set as it is; with "none" whatever
has booted. What goes over the bus of the TPM is encrypted.

Registers change when firmware, boot loader or the settings of Secure Boot do, depending on which were chosen. Have another slot for
that day, such as a recovery kit; then "root slot reseal" seals it anew.`,
		Example: `  nbdcrypt root slot add tpm2
  nbdcrypt root slot add tpm2 --pcrs sha256:4,7 --name boot`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) (err error) {
			if ask.Device, err = device(cmd, ask.Device); err != nil {
				return err
			}
			return a.printsSlot(cmd, func(ctx context.Context, c *control.Client) (control.Slot, error) { return c.SlotTPM(ctx, ask) })
		}),
	}
	cmd.Flags().StringVar(&ask.Name, "name", control.SlotTPM, "what to call the slot")
	tpmFlags(cmd, &ask.PCRs, &ask.Device, "registers that have to stay as they are, such as sha256:4,7, or none (default sha256:7)", "the TPM, a device or a unix socket (default /dev/tpmrm0)")
	return cmd
}

// tpmFlags adds the flags that say what to seal to.
func tpmFlags(cmd *cobra.Command, pcrs, device *string, aboutPCRs, aboutDevice string) {
	cmd.Flags().StringVar(pcrs, "pcrs", "", aboutPCRs)
	cmd.Flags().StringVar(device, "tpm-device", "", aboutDevice)
	_ = cmd.RegisterFlagCompletionFunc("pcrs", cobra.FixedCompletions([]string{"sha256:7", "sha256:4,7", "none"}, cobra.ShellCompDirectiveNoFileComp))
	_ = cmd.MarkFlagFilename("tpm-device") // the flags exist: it can't fail
}

// device makes a path whole: the daemon runs elsewhere.
func device(cmd *cobra.Command, path string) (string, error) {
	if path == "" {
		if cmd.Flags().Changed("tpm-device") {
			return "", usage(cmd, "--tpm-device is empty")
		}
		return "", nil
	}
	return filepath.Abs(path)
}

func (a *app) slotReseal() *cobra.Command {
	ask := control.SlotSeal{}
	cmd := &cobra.Command{
		Use: "reseal SLOT", Short: "Seal a TPM's slot to what the TPM's registers are now",
		Long: `Seal a slot of kind tpm2 anew: after firmware or boot loader were updated, or Secure Boot was set up anew, or to choose other registers, or
another TPM. The root key has to be open. The slot keeps its name and its id; older copies of it open what they opened before.`,
		Example: `  nbdcrypt root slot reseal tpm2
  nbdcrypt root slot reseal tpm2 --pcrs sha256:4,7`,
		Args:              wants("SLOT"),
		ValidArgsFunction: a.completeSlot,
		RunE: runs(func(cmd *cobra.Command, args []string) (err error) {
			if ask.Device, err = device(cmd, ask.Device); err != nil {
				return err
			}
			return a.printsSlot(cmd, func(ctx context.Context, c *control.Client) (control.Slot, error) {
				return c.SlotReseal(ctx, args[0], ask)
			})
		}),
	}
	tpmFlags(cmd, &ask.PCRs, &ask.Device, "other registers than before, such as sha256:4,7, or none", "another TPM than before, a device or a unix socket")
	return cmd
}

func (a *app) slotAddCredential() *cobra.Command {
	ask := control.SlotCredentialAdd{}
	var secret, out string
	cmd := &cobra.Command{
		Use: "credential", Short: "Let a systemd credential open the root key at the daemon's start",
		Long: `Make a random secret that opens the root key, print it this once, and let it open the root key by itself when systemd gives it to the
daemon as a credential (LoadCredentialEncrypted= in the unit). What keeps it at rest is what systemd-creds encrypts it with: the TPM, the host's
key, or both. Nothing but the secret goes to stdout, so that it can be piped there; --out writes it to a new file instead:

  nbdcrypt root slot add credential | systemd-creds encrypt --name=nbdcrypt.root - /etc/credstore.encrypted/nbdcrypt.root

--secret-file takes a secret of yours: 32 to 1024 bytes, which have to be random.

` + notInView,
		Example: `  nbdcrypt root slot add credential --out /run/nbdcrypt.root
  nbdcrypt root slot add credential --credential disks --secret-file /run/disks`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("secret-file") {
				return a.giveCredential(cmd, ask, secret)
			}
			return a.makeCredential(cmd, ask, out)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&ask.Name, "name", control.SlotCredential, "what to call the slot")
	flags.StringVar(&ask.Credential, "credential", "", "what systemd calls the credential (default nbdcrypt.root)")
	flags.StringVar(&secret, "secret-file", "", "take the secret from this file (- is stdin); a newline at its end is not part of it")
	flags.StringVar(&out, "out", "", "write the secret to this new file")
	cmd.MarkFlagsMutuallyExclusive("secret-file", "out")
	for _, name := range []string{"secret-file", "out"} {
		_ = cmd.MarkFlagFilename(name) // the flags exist: it can't fail
	}
	return cmd
}

func (a *app) giveCredential(cmd *cobra.Command, ask control.SlotCredentialAdd, file string) error {
	secret, err := a.passphraseFrom(cmd, file)
	if err != nil {
		return err
	}
	defer clear(secret)
	made, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Credential, error) {
		return c.SlotGive(ctx, ask, secret)
	})
	if err != nil {
		return err
	}
	return a.result(cmd, made, func(w io.Writer) { printSlot(w, made.Slot) })
}

func (a *app) makeCredential(cmd *cobra.Command, ask control.SlotCredentialAdd, out string) error {
	if err := a.hide(); err != nil {
		return err
	}
	files, err := sheetFiles(out, 1)
	if err != nil {
		return err
	}
	defer files.drop()
	stayOnBrokenPipe()
	made, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Credential, error) {
		return c.SlotCredential(ctx, ask)
	})
	if err != nil {
		return err
	}
	if err = a.tellCredential(cmd, made, out, files); err != nil && !files.kept {
		return a.takeBack(cmd, made.Slot, err)
	}
	return err
}

// tellCredential prints a credential, or writes it into a file.
func (a *app) tellCredential(cmd *cobra.Command, made control.Credential, out string, files *outFiles) error {
	if out == "" {
		return a.result(cmd, made, func(w io.Writer) { fmt.Fprintln(w, made.Secret) })
	}
	if err := files.write(0, []byte(made.Secret+"\n")); err != nil {
		return err
	}
	files.keep()
	made.Secret = ""
	return a.result(cmd, made, func(w io.Writer) { printSlot(w, made.Slot) })
}
