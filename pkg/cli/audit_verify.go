package cli

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func (a *app) auditVerify() *cobra.Command {
	var heads []string
	var file string
	cmd := &cobra.Command{
		Use: "verify", Short: "Look for records that were changed, dropped, added, reordered or cut",
		Long: `Read the whole log again and hold it against its hashes, its keyed head, the catalog and the daemon's memory, and against each --head
that was kept elsewhere. Exit code 8 means that it was tampered with; the message names the line.

With --file a copy of the log is read here, without a daemon and without keys: then only the hashes, and the heads that are given, tell.`,
		Example: `  nbdcrypt audit verify
  nbdcrypt audit verify --head 812:0f1e2d3c4b5a69788796a5b4c3d2e1f00f1e2d3c4b5a69788796a5b4c3d2e1f0
  nbdcrypt audit verify --file /backup/audit.log`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			marks := make([]control.AuditMark, len(heads))
			for i, text := range heads {
				var err error
				if marks[i], err = parseHead(cmd, text); err != nil {
					return err
				}
			}
			verified, err := a.verifyLog(cmd, file, marks)
			if err != nil {
				return err
			}
			return a.result(cmd, verified, func(w io.Writer) {
				fmt.Fprintf(w, "the log is whole: %s, the last of %s", count(int(verified.Records), "record", "records"), moment(verified.Head.Time))
				if verified.Heads > 0 {
					fmt.Fprintf(w, "; it has %s", count(verified.Heads, "head that was kept", "heads that were kept"))
				}
				fmt.Fprintf(w, "\nhead %s\n", headWord(verified.Head.Seq, verified.Head.Hash))
			})
		}),
	}
	cmd.Flags().StringArrayVar(&heads, "head", nil, "the log must have this record: SEQ:HASH (may be repeated)")
	cmd.Flags().StringVar(&file, "file", "", "verify this copy of the log, here")
	_ = cmd.MarkFlagFilename("file") // the flag exists: it can't fail
	return cmd
}

func (a *app) verifyLog(cmd *cobra.Command, file string, marks []control.AuditMark) (control.AuditVerified, error) {
	if !cmd.Flags().Changed("file") {
		v, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.AuditVerified, error) {
			return c.AuditVerify(ctx, marks)
		})
		if refusal.CodeOf(err) == refusal.Unreachable {
			err = a.withoutDaemon(cmd, marks, refusal.From(err))
		}
		return v, err
	}
	m := a.meter(cmd)
	defer m.start()()
	v, torn, err := verifyFile(cmd.Context(), file, marks, m.news)
	return v, cmp.Or(err, torn)
}

// withoutDaemon looks at the log where it should lie: a daemon that finds it altered does not start, and then this is what tells of it. A log
// whose hashes fit is no proof without the keyed head, so that the daemon stays missing.
func (a *app) withoutDaemon(cmd *cobra.Command, marks []control.AuditMark, unreachable *refusal.Error) error {
	state, err := a.hooks.Env.path(statePlace(), "")
	if err != nil {
		return unreachable
	}
	// An end that is torn is what a daemon leaves that was killed, and the next one sees to it.
	_, _, err = verifyFile(cmd.Context(), filepath.Join(state, "audit.log"), marks, func(control.Job) {})
	switch {
	case refusal.CodeOf(err) == refusal.Damaged:
		return err
	case err != nil:
		return unreachable
	}
	return refusal.New(refusal.Unreachable, unreachable.Hint, "%s; by its hashes alone the log in %s is whole, and its keyed head only the daemon can read",
		unreachable.Message, state)
}

// verifyFile verifies a copy of a log, of whatever store; torn tells that it ends inside of a line.
func verifyFile(ctx context.Context, path string, marks []control.AuditMark, news func(control.Job)) (v control.AuditVerified, torn, err error) {
	f, err := os.Open(path)
	if err != nil {
		return v, nil, refusal.New(refusal.NotFound, "name a copy of the file audit.log of a state directory", "the log can't be read: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return v, nil, err
	}
	kept := chain.NewWitnesses()
	for _, mark := range marks {
		kept.Add(chain.Head(mark), "whoever kept a head elsewhere")
	}
	end, err := chain.Verify(ctx, f, "", kept, func(done int64) {
		news(control.Job{Verb: "audit verify", Unit: "bytes", Done: done, Total: info.Size()})
	})
	switch {
	case ctx.Err() != nil:
		return v, nil, refusal.New(refusal.Failed, "", "interrupted")
	case err != nil:
		return v, nil, err
	}
	return control.AuditVerified{Records: end.Head.Seq, Bytes: end.Size, Heads: len(marks),
		Head: control.AuditHead{Seq: end.Head.Seq, Hash: end.Head.Hash, Time: end.Time}}, end.TornError(), nil
}
