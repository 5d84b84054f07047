package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) rootSlot() *cobra.Command {
	return group("slot", "The ways to open the root key",
		`Each slot opens the root key by itself. Some are automatic, and tried at the daemon's start: the root key file, which is the slot key-file,
and where that does not open it, all others side by side: a TPM, a PKCS#11 token, a credential of systemd. A passphrase opens it when a
person gives it to "root unlock", and a recovery kit when it is typed for "root recovery open".

To have a daemon that starts locked: add a passphrase, keep a copy of the root key file in a safe place, and remove the slot key-file.`,
		"  nbdcrypt root slot list\n  nbdcrypt root slot add passphrase --name alice\n  nbdcrypt root slot remove alice",
		a.slotList(),
		a.slotAdd(), a.slotReseal(), a.slotRemove())
}

func (a *app) slotList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List the ways to open the root key",
		Long: `List the slots of the root key, also while it is locked. One that is automatic opens it at the daemon's start; one that is not
present could not open it now: its file, its TPM or its credential is missing, or it is damaged.`,
		Example: "  nbdcrypt root slot list --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			slots, err := talk(a, cmd, func(ctx context.Context, c *control.Client) ([]control.Slot, error) { return c.SlotList(ctx) })
			if err != nil {
				return err
			}
			return list(a, cmd, slots, "No slots.", "ID KIND NAME AUTOMATIC PRESENT CREATED DETAIL", func(s control.Slot) []string {
				return []string{s.ID, s.Kind, s.Name, yesNo(s.Automatic), yesNo(s.Present), maybeMoment(s.Created), s.Detail}
			})
		}),
	}
}

func (a *app) slotAddPassphrase() *cobra.Command {
	var name, file string
	cmd := &cobra.Command{
		Use: "passphrase", Short: "Let a passphrase open the root key",
		Long: `Ask for a new passphrase, twice, or read it from a file, and let it open the root key. Everything in the store is as safe as the
passphrase is hard to guess for who gets a copy of the state directory: take one of many words, used nowhere else.

` + notInView,
		Example: `  nbdcrypt root slot add passphrase --name alice
  nbdcrypt root slot add passphrase --passphrase-file /media/stick/passphrase`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			passphrase, err := a.newPassphrase(cmd, file)
			if err != nil {
				return err
			}
			defer clear(passphrase)
			slot, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Slot, error) {
				return c.SlotAdd(ctx, name, passphrase)
			})
			if err != nil {
				return err
			}
			return a.result(cmd, slot, func(w io.Writer) { printSlot(w, slot) })
		}),
	}
	cmd.Flags().StringVar(&name, "name", "passphrase", "what to call the slot: whose passphrase it is")
	passphraseFlag(cmd, &file)
	return cmd
}

// newPassphrase reads a passphrase from a file, or asks for it twice: what nobody saw may be mistyped.
func (a *app) newPassphrase(cmd *cobra.Command, file string) ([]byte, error) {
	if fromFile(cmd) {
		return a.passphraseFrom(cmd, file)
	}
	first, err := a.ask(cmd, "New passphrase")
	if err != nil {
		return nil, err
	}
	second, err := a.ask(cmd, "The same again")
	defer clear(second)
	if err == nil && !bytes.Equal(first, second) {
		err = refusal.New(refusal.Usage, "type it again", "the two passphrases differ: nothing was added")
	}
	if err != nil {
		clear(first)
		return nil, err
	}
	return first, nil
}

func (a *app) slotRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove SLOT", Short: "Take a way to open the root key away",
		Long: `Remove a slot, by its id or its name. Its file is wiped; but in an older copy of the state directory a removed passphrase still opens
the root key, which is the one in use. To remove the slot key-file wipes the root key file. The last slot can't be removed. This asks
first, unless --yes is given, and says so where nothing else opens the root key without anybody: the daemon starts locked from then on.`,
		Example:           "  nbdcrypt root slot remove alice",
		Args:              wants("SLOT"),
		ValidArgsFunction: a.completeSlot,
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			slot, err := confirmed(a, cmd, yes, func(ctx context.Context, c *control.Client, yes bool) (control.Slot, error) {
				return c.SlotRemove(ctx, args[0], yes)
			})
			if err != nil {
				return err
			}
			a.say(cmd, "slot %s is removed", slotWord(slot))
			if slot.Kind == control.SlotKeyFile {
				a.say(cmd, "%s was wiped and removed; copies of it still open this store", slot.Detail)
			}
			return nil
		}),
	}
	yesFlag(cmd, &yes)
	return cmd
}

func printSlot(w io.Writer, s control.Slot) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "id\t%s\n", s.ID)
		fmt.Fprintf(t, "kind\t%s\n", s.Kind)
		fmt.Fprintf(t, "name\t%s\n", s.Name)
		fmt.Fprintf(t, "detail\t%s\n", s.Detail)
		fmt.Fprintf(t, "created\t%s\n", maybeMoment(s.Created))
	})
}

// slotWord names a slot in a sentence.
func slotWord(s control.Slot) string {
	if s.Name == s.ID || s.Name == "" { // a damaged one has lost its name
		return s.ID
	}
	return s.Name + " (" + s.ID + ")"
}

func yesNo(is bool) string { return map[bool]string{true: "yes", false: "no"}[is] }

func maybeMoment(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return moment(*t)
}
