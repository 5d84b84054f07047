package cli

import (
	"bytes"
	"fmt"
	"io"

	"nbdcrypt/pkg/control"
)

// printSheet prints a share as people keep it: what it is of, its lines, and what to do with them.
func printSheet(w io.Writer, k control.RecoveryKit, sheet control.RecoverySheet) {
	_, _ = w.Write(sheetText(k, sheet))
}

func sheetText(k control.RecoveryKit, sheet control.RecoverySheet) []byte {
	var b bytes.Buffer
	whole := k.Shares == 1
	fmt.Fprintln(&b, "nbdcrypt recovery kit")
	table(&b, func(t io.Writer) {
		if !whole {
			fmt.Fprintf(t, "share\t%d of %d; any %d of them open the store\n", sheet.Share, k.Shares, k.Threshold)
		}
		fmt.Fprintf(t, "store\t%s\n", k.Store)
		fmt.Fprintf(t, "slot\t%s (%s)\n", k.Slot.ID, k.Slot.Name)
		fmt.Fprintf(t, "made\t%s\n", maybeMoment(k.Slot.Created))
	})
	fmt.Fprintln(&b)
	for i, line := range sheet.Lines {
		fmt.Fprintf(&b, "    line %d   %s\n", i+1, line)
	}
	sheets := "this sheet"
	if !whole {
		sheets = fmt.Sprintf("each of %d sheets", k.Threshold)
	}
	fmt.Fprintf(&b, `
The last group of each line is a sum over it: a typo is found in its line. The letters i, l, o and u do not occur.

To open the store, on this machine or another:
 1. Install nbdcrypt, and put a copy of the state directory in its place (/var/lib/nbdcrypt).
 2. Start the daemon: nbdcrypt serve. It starts locked where nothing else opens the store.
 3. nbdcrypt root recovery open, and type the four lines of %s.
 4. nbdcrypt root slot add key-file makes a root key file again.

`, sheets)
	fmt.Fprintln(&b, map[bool]string{
		true:  "Who has this sheet and a copy of the state directory can read every disk.",
		false: fmt.Sprintf("Who has %d of these sheets and a copy of the state directory can read every disk.\nKeep each in another place, and note who has which.", k.Threshold),
	}[whole])
	fmt.Fprintln(&b, `Keep it away from the machine and its backups. nbdcrypt root recovery verify tells whether it still fits;
nbdcrypt root slot remove takes the kit's slot away, but not from older copies of the state directory.`)
	return b.Bytes()
}
