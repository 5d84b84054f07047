package cli

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// notInView is why there is no flag and no variable for a passphrase itself.
const notInView = `A passphrase is typed, or read from a file (- is stdin). It is never a word of the command line nor of the environment: other
processes can read the one, the shell's history keeps it, and every child inherits the other.`

// passphraseFlag adds the flag that names where a passphrase is read from.
func passphraseFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVar(file, "passphrase-file", "", "read the passphrase from this file (- is stdin); a newline at its end is not part of it")
	_ = cmd.MarkFlagFilename("passphrase-file") // the flag exists: it can't fail
}

// fromFile tells whether a file was named for the passphrase: an empty name, as an unset variable makes one, is a mistake and
// not another way to unlock.
func fromFile(cmd *cobra.Command) bool { return cmd.Flags().Changed("passphrase-file") }

// passphraseFrom reads a passphrase from a file. Whoever gets it wipes it.
func (a *app) passphraseFrom(cmd *cobra.Command, name string) ([]byte, error) {
	if err := a.hide(); err != nil {
		return nil, err
	}
	in := cmd.InOrStdin()
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return nil, refusal.New(refusal.Usage, "name a file that this user may read with --passphrase-file", "the passphrase can't be read: %w", err)
		}
		defer file.Close()
		in = file
	}
	return readAtMost(in)
}

// readAtMost reads into one piece of memory, so that there is one copy to wipe.
func readAtMost(in io.Reader) ([]byte, error) {
	memory := make([]byte, control.MaxPassphrase+2)
	n, err := io.ReadFull(in, memory)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		clear(memory)
		return nil, fmt.Errorf("reading the passphrase: %w", err)
	}
	passphrase := memory[:n]
	if n > 0 && passphrase[n-1] == '\n' {
		passphrase = passphrase[:n-1]
	}
	if err := control.CheckPassphrase(len(passphrase)); err != nil {
		clear(memory)
		return nil, err
	}
	return passphrase, nil
}

// ask asks for a passphrase on the terminal. Whoever gets it wipes it.
func (a *app) ask(cmd *cobra.Command, prompt string) ([]byte, error) {
	if !a.isTerminal(cmd.InOrStdin()) {
		return nil, refusal.New(refusal.Usage, "name a file with --passphrase-file (- is stdin)", "there is no terminal to ask for a passphrase on")
	}
	if err := a.hide(); err != nil {
		return nil, err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: ", prompt)
	passphrase, err := a.typed(cmd.Context(), cmd.InOrStdin())
	fmt.Fprintln(cmd.ErrOrStderr())
	if err == nil {
		err = control.CheckPassphrase(len(passphrase))
	}
	if err != nil {
		clear(passphrase)
		return nil, err
	}
	return passphrase, nil
}
