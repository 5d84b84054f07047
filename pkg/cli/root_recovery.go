package cli

import (
	"context"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/kit"
)

// fromKit says where sheets are read from.
const fromKit = `The lines of a kit's sheets are typed, or read from files with --kit (- is stdin), which hold sheets as they were printed. Of a kit with
several shares any of them do, as many as its sheets say. A typo is found in its line.`

func (a *app) rootRecovery() *cobra.Command {
	return group("recovery", "A kit on paper that opens the root key",
		`A recovery kit opens the root key where nothing else does any more: with it and a copy of the state directory everything opens, on any
machine. It is a slot as others are, and its secret is in no file.

Who has a kit (of several shares: as many of them as open it) and a copy of the state directory can read every disk. Keep it on paper, away from
the machine and its backups, and verify it from time to time.`,
		"  nbdcrypt root recovery create\n  nbdcrypt root recovery create --shares 5 --threshold 3\n  nbdcrypt root recovery verify",
		a.recoveryCreate(), a.recoveryOpen(), a.recoveryVerify())
}

func (a *app) recoveryCreate() *cobra.Command {
	ask := control.RecoveryCreate{}
	var out string
	cmd := &cobra.Command{
		Use: "create", Short: "Make a recovery kit, and print it this once",
		Long: `Make a secret that opens the root key, and print it as a sheet to keep on paper. With --shares and --threshold it is printed as that many sheets,
any THRESHOLD of which open the root key, and fewer of which say nothing about it. It is told only once; what is lost is replaced by another kit,
and "root slot remove".

--out writes new files instead: FILE, or for shares FILE-1 and so on. Print them, verify the kit, and wipe them.`,
		Example: `  nbdcrypt root recovery create
  nbdcrypt root recovery create --shares 5 --threshold 3 --out /run/user/0/kit`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("shares") != cmd.Flags().Changed("threshold") {
				return usage(cmd, "--shares and --threshold go together")
			}
			if err := kit.CheckSplit(ask.Shares, ask.Threshold); err != nil {
				return usage(cmd, "%w", err)
			}
			return a.createKit(cmd, ask, out)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&ask.Name, "name", control.SlotRecovery, "what to call the slot")
	flags.IntVar(&ask.Shares, "shares", 1, "how many sheets there are, 2 to 16")
	flags.IntVar(&ask.Threshold, "threshold", 1, "how many of them open the root key, 2 or more")
	flags.StringVar(&out, "out", "", "write the sheets to new files of this name")
	_ = cmd.MarkFlagFilename("out") // the flag exists: it can't fail
	return cmd
}

func (a *app) createKit(cmd *cobra.Command, ask control.RecoveryCreate, out string) error {
	if err := a.hide(); err != nil {
		return err
	}
	files, err := sheetFiles(out, ask.Shares)
	if err != nil {
		return err
	}
	defer files.drop()
	stayOnBrokenPipe()
	made, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.RecoveryKit, error) {
		return c.RecoveryCreate(ctx, ask)
	})
	if err != nil {
		return err
	}
	if err = a.giveKit(cmd, made, out, files); err != nil && !files.kept {
		return a.takeBack(cmd, made.Slot, err)
	}
	return err
}

// giveKit prints a kit, or writes it into files.
func (a *app) giveKit(cmd *cobra.Command, made control.RecoveryKit, out string, files *outFiles) error {
	if out == "" {
		return a.result(cmd, made, func(w io.Writer) {
			for i, sheet := range made.Sheets {
				if i > 0 {
					fmt.Fprint(w, "\f") // a page each
				}
				printSheet(w, made, sheet)
			}
		})
	}
	for i, sheet := range made.Sheets {
		if err := files.write(i, sheetText(made, sheet)); err != nil {
			return err
		}
	}
	files.keep()
	made.Sheets = nil
	return a.result(cmd, made, func(w io.Writer) { printSlot(w, made.Slot) })
}

func (a *app) recoveryOpen() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "open", Short: "Open the root key by a recovery kit",
		Long: `Open the root key by a recovery kit. On a new machine: install nbdcrypt, put a copy of the state directory in its place, and start the
daemon, which starts locked. Afterwards "root slot add key-file" makes a root key file again.

` + fromKit,
		Example: `  nbdcrypt root recovery open
  nbdcrypt root recovery open --kit sheet-1 --kit sheet-4 --kit sheet-5`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			shares, err := a.sharesOf(cmd, files)
			if err != nil {
				return err
			}
			defer clear(shares)
			state, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.RootState, error) {
				return c.RecoveryOpen(ctx, shares)
			})
			if err != nil {
				return err
			}
			return a.result(cmd, state, func(w io.Writer) { printRecovered(w, state) })
		}),
	}
	kitFlag(cmd, &files)
	return cmd
}

func (a *app) recoveryVerify() *cobra.Command {
	var files []string
	cmd := &cobra.Command{
		Use: "verify", Short: "Tell whether a recovery kit opens the root key",
		Long: `Tell whether a recovery kit would open the root key, which stays as it is, open or locked. It prints the slot that is the kit's.

` + fromKit,
		Example: "  nbdcrypt root recovery verify --kit sheet",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			shares, err := a.sharesOf(cmd, files)
			if err != nil {
				return err
			}
			defer clear(shares)
			return a.printsSlot(cmd, func(ctx context.Context, c *control.Client) (control.Slot, error) {
				return c.RecoveryVerify(ctx, shares)
			})
		}),
	}
	kitFlag(cmd, &files)
	return cmd
}

func kitFlag(cmd *cobra.Command, files *[]string) {
	cmd.Flags().StringArrayVar(files, "kit", nil, "read sheets from this file (- is stdin; may be repeated)")
	_ = cmd.MarkFlagFilename("kit") // the flag exists: it can't fail
}

// printRecovered says what to do about a store that opened by its kit alone.
func printRecovered(w io.Writer, s control.RootState) {
	printUnlocked(w, s)
	for _, slot := range s.Slots {
		if slot.Automatic && slot.Present {
			return
		}
	}
	fmt.Fprintln(w, "nothing opens it without anybody: `nbdcrypt root slot add key-file` makes a root key file, `nbdcrypt root slot add tpm2` has the TPM open it")
}
