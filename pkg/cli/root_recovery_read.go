package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/kit"
	"nbdcrypt/pkg/refusal"
)

const (
	// maxSheets is more than all sheets of a kit, with what is printed round them.
	maxSheets = 64 << 10
	// maxTyped is more than a line of a sheet, however it is spaced.
	maxTyped = 256
)

// sharesOf reads the shares of a kit, one after the other. Whoever gets them wipes them.
func (a *app) sharesOf(cmd *cobra.Command, files []string) ([]byte, error) {
	if err := a.hide(); err != nil {
		return nil, err
	}
	memory := make([]byte, kit.MaxShares*kit.ShareSize)
	count, err := 0, error(nil)
	switch {
	case len(files) > 0:
		count, err = readKits(cmd, memory, files)
	case a.isTerminal(cmd.InOrStdin()):
		count, err = a.askShares(cmd, memory)
	default:
		err = refusal.New(refusal.Usage, "name a file with --kit (- is stdin)", "there is no terminal to ask for the recovery kit on")
	}
	if err != nil {
		clear(memory)
		return nil, err
	}
	return memory[:count*kit.ShareSize], nil
}

func readKits(cmd *cobra.Command, memory []byte, files []string) (count int, err error) {
	text := make([]byte, maxSheets)
	defer clear(text)
	for _, name := range files {
		n, err := readKit(cmd, name, text)
		if err != nil {
			return count, refusal.New(refusal.Usage, "name a file that this user may read with --kit", "the recovery kit can't be read: %w", err)
		}
		more, err := kit.ReadSheets(memory[count*kit.ShareSize:], text[:n], 1)
		if err != nil {
			return count, refusal.New(refusal.Usage, "correct it in the file, or type the sheet instead", "%s: %w", name, err)
		}
		if more == 0 {
			return count, refusal.New(refusal.Usage, "a sheet has four lines that begin with \"line 1\" and so on", "%s holds no sheet of a recovery kit", name)
		}
		count += more
	}
	return count, nil
}

// readKit reads a file into text.
func readKit(cmd *cobra.Command, name string, text []byte) (n int, err error) {
	in := cmd.InOrStdin()
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			return 0, err
		}
		defer file.Close()
		in = file
	}
	n, err = io.ReadFull(in, text)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return n, nil
	}
	if err == nil {
		err = errors.New("it is longer than a kit")
	}
	return n, err
}

// askShares asks for sheets line by line, until there are as many as the first one says.
func (a *app) askShares(cmd *cobra.Command, memory []byte) (count int, err error) {
	var first kit.Head
	for count == 0 || count < first.Threshold {
		share := memory[count*kit.ShareSize:][:kit.ShareSize]
		for line := 1; line <= kit.Lines; line++ {
			if err := a.askLine(cmd, share, count+1, line); err != nil {
				return count, err
			}
		}
		head, err := kit.HeadOf(share)
		switch {
		case err != nil:
			return count, refusal.New(refusal.Usage, "use the version of nbdcrypt that printed it, or a later one", "%w", err)
		case count == 0:
			first = head
			if head.Threshold > 1 {
				a.say(cmd, "this is share %d of %d; %d are needed", head.Number, head.Count, head.Threshold)
			}
		case head.Tag != first.Tag:
			a.say(cmd, "that sheet is of another kit; take one that names the same slot")
			continue
		case twice(memory[:count*kit.ShareSize], head.Number):
			a.say(cmd, "share %d was given already; take another sheet", head.Number)
			continue
		}
		count++
	}
	return count, nil
}

// twice tells whether a share is among those that are there.
func twice(shares []byte, number int) bool {
	for at := 0; at < len(shares); at += kit.ShareSize {
		if h, err := kit.HeadOf(shares[at:][:kit.ShareSize]); err == nil && h.Number == number {
			return true
		}
	}
	return false
}

// askLine asks for a line until it fits. What is typed shows: it is on the paper beside the screen.
func (a *app) askLine(cmd *cobra.Command, share []byte, sheet, line int) error {
	for {
		fmt.Fprintf(cmd.ErrOrStderr(), "Sheet %d, line %d: ", sheet, line)
		text, err := readSeen(cmd.Context(), cmd.InOrStdin())
		if err != nil {
			return err
		}
		err = kit.ReadLine(share, text, line)
		clear(text)
		if err == nil {
			return nil
		}
		a.say(cmd, "sheet %d, line %d: %v", sheet, line, err)
	}
}

// readSeen reads a line, but no longer than ctx lives, in one piece of memory.
func readSeen(ctx context.Context, in io.Reader) ([]byte, error) {
	got := make(chan line, 1)
	go func() {
		memory := make([]byte, maxTyped)
		for n := range memory {
			if _, err := in.Read(memory[n : n+1]); err != nil {
				clear(memory)
				got <- line{nil, errUndone}
				return
			}
			if memory[n] == '\n' {
				got <- line{memory[:n], nil}
				return
			}
		}
		got <- line{memory, nil}
	}()
	select {
	case <-ctx.Done():
		return nil, errUndone
	case l := <-got:
		return l.bytes, l.err
	}
}
