package cli

import (
	"context"
	"encoding/hex"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

func (a *app) audit() *cobra.Command {
	return group("audit", "The log of everything that was done, refusals too",
		`Every verb leaves one record: who did what to which resource, and how it ended. Records are chained by hashes, and the head of the
chain is kept under a key, so that an edit, a drop, a reorder and a cut are found. A log that somebody has put back together with all
of the state directory is found by a head that was kept elsewhere: write down what "audit head" prints, now and then, where the
administrators of this machine can't change it.`,
		"  nbdcrypt audit list --since 24h --outcome refused\n  nbdcrypt audit head\n  nbdcrypt audit verify",
		a.auditList(), a.auditVerify(), a.auditHead())
}

func (a *app) auditHead() *cobra.Command {
	return &cobra.Command{
		Use: "head", Short: "Print the end of the log, to be kept elsewhere",
		Long: `Print number and hash of the last record as SEQ:HASH. "audit verify --head SEQ:HASH" tells later whether all of the log up to there is
as it was.`,
		Example: "  nbdcrypt audit head",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			head, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.AuditHead, error) { return c.AuditHead(ctx) })
			if err != nil {
				return err
			}
			return a.result(cmd, head, func(w io.Writer) { fmt.Fprintln(w, headWord(head.Seq, head.Hash)) })
		}),
	}
}

func headWord(seq uint64, hash string) string { return fmt.Sprintf("%d:%s", seq, hash) }

// parseHead reads what audit head has printed.
func parseHead(cmd *cobra.Command, text string) (control.AuditMark, error) {
	number, hash, _ := strings.Cut(strings.TrimSpace(text), ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	if sum, errHex := hex.DecodeString(hash); err != nil || seq == 0 || errHex != nil || len(sum) != 32 || strings.ToLower(hash) != hash {
		return control.AuditMark{}, usage(cmd, "--head is SEQ:HASH, as `nbdcrypt audit head` prints it, not %q", text)
	}
	return control.AuditMark{Seq: seq, Hash: hash}, nil
}
