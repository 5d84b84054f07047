package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// maxTries is how often a person may mistype.
const maxTries = 3

// whileLocked is what the root key is needed for, and what not.
const whileLocked = `While it is locked, disks that are attached go on and can be detached; lists, plain disks, deleting, disabling and enabling keys
work. What wraps or unwraps a key exits 10: attaching or creating an encrypted disk, creating, rotating or importing a key, re-wrapping, a
project's first grant, escrow, export, check, adding, sealing and removing a slot, making a recovery kit.`

func (a *app) rootKey() *cobra.Command {
	return group("root", "Open and lock the root key, and the ways to open it",
		`Every key of the store is under the root key. It is open from the daemon's start, where the root key file is there or another slot opens it
by itself, else from "root unlock", until "root lock". Slots are the ways to open it: the root key file, a TPM, a credential of
systemd, passphrases, and recovery kits.

`+whileLocked+`

A daemon that no slot opens at its start knows nothing of its disks until it is unlocked.`,
		"  nbdcrypt root slot add passphrase\n  nbdcrypt root lock\n  nbdcrypt root unlock",
		a.rootUnlock(), a.rootLock(), a.rootSlot(), a.rootRecovery())
}

func (a *app) rootUnlock() *cobra.Command {
	var file string
	var ask bool
	cmd := &cobra.Command{
		Use: "unlock", Short: "Open the root key",
		Long: `Open the root key by the root key file, else by whichever other automatic slot is the first: a TPM, a credential. Where none does this
asks for a passphrase on a terminal. --passphrase asks for one in any case, --passphrase-file reads one. A wrong passphrase exits 10; the next is tried a little later each time.

` + notInView,
		Example: `  nbdcrypt root unlock
  nbdcrypt root unlock --passphrase
  nbdcrypt root unlock --passphrase-file /media/stick/passphrase`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			state, err := a.unlock(cmd, ask, file)
			if err != nil {
				return err
			}
			return a.result(cmd, state, func(w io.Writer) { printUnlocked(w, state) })
		}),
	}
	cmd.Flags().BoolVar(&ask, "passphrase", false, "ask for a passphrase, also where the root key file is there")
	passphraseFlag(cmd, &file)
	cmd.MarkFlagsMutuallyExclusive("passphrase", "passphrase-file")
	return cmd
}

func (a *app) unlock(cmd *cobra.Command, ask bool, file string) (control.RootState, error) {
	switch {
	case fromFile(cmd):
		return a.unlockBy(cmd, func() ([]byte, error) { return a.passphraseFrom(cmd, file) })
	case ask:
		return a.unlockAsking(cmd)
	}
	state, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.RootState, error) { return c.RootUnlock(ctx) })
	if err == nil {
		return state, nil
	}
	kinds := a.kindsLeft(cmd)
	refused := refusal.From(err)
	switch {
	case !kinds[control.SlotPassphrase] && kinds[control.SlotRecovery]:
		return state, refusal.New(refused.Code, "`nbdcrypt root recovery open` opens it by its recovery kit; or: "+refused.Hint, "%w", err)
	case !kinds[control.SlotPassphrase]:
		return state, err
	case !a.isTerminal(cmd.InOrStdin()):
		return state, refusal.New(refused.Code, "run it on a terminal, or give a passphrase with --passphrase-file (- is stdin); or: "+refused.Hint, "%w", err)
	}
	a.say(cmd, "%s", refused.Message)
	return a.unlockAsking(cmd)
}

// kindsLeft tells what would help: none where a root key file is there that only has to be put right, else the kinds of slots that are whole.
func (a *app) kindsLeft(cmd *cobra.Command) map[string]bool {
	slots, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Slot, error) { return c.SlotList(ctx) })
	kinds := map[string]bool{}
	for _, s := range slots {
		kinds[s.Kind] = kinds[s.Kind] || s.Present
	}
	if err != nil || kinds[control.SlotKeyFile] {
		return nil
	}
	return kinds
}

// unlockAsking asks until the passphrase is right, but not for ever.
func (a *app) unlockAsking(cmd *cobra.Command) (control.RootState, error) {
	for tries := 1; ; tries++ {
		state, err := a.unlockBy(cmd, func() ([]byte, error) { return a.ask(cmd, "Passphrase of the root key") })
		if refusal.CodeOf(err) != refusal.Locked || tries == maxTries {
			return state, err
		}
		a.say(cmd, "%s", refusal.From(err).Message)
	}
}

func (a *app) unlockBy(cmd *cobra.Command, read func() ([]byte, error)) (state control.RootState, err error) {
	passphrase, err := read()
	if err != nil {
		return state, err
	}
	defer clear(passphrase)
	return talk(a, cmd, func(ctx context.Context, c *control.Client) (control.RootState, error) {
		return c.RootPassphrase(ctx, passphrase)
	})
}

func printUnlocked(w io.Writer, s control.RootState) {
	switch {
	case !s.Changed:
		fmt.Fprintln(w, "the root key is open already")
	case s.Slot == nil: // it was open, and what lies under it was not
		fmt.Fprintln(w, "the root key is open")
	default:
		fmt.Fprintf(w, "the root key is open, by slot %s\n", slotWord(*s.Slot))
	}
}
