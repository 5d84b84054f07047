package cli

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/control"
)

// auditAsked are the flags of audit list.
type auditAsked struct {
	since, until string
	filter       control.AuditFilter
}

func (a *app) auditList() *cobra.Command {
	var asked auditAsked
	cmd := &cobra.Command{
		Use: "list", Short: "List what was done",
		Long: `List the records of the log, the oldest first: those of the project, and in the project default those of all projects. TIME is a
time such as 2026-01-02T15:04:05Z, a day such as 2026-01-02, or how long ago, such as 90m, 24h or 7d. With --follow it goes on with each
record that is added until it is interrupted, and with --json too it prints an object a line then.`,
		Example: `  nbdcrypt audit list --limit 20
  nbdcrypt audit list --since 7d --verb key --json
  nbdcrypt audit list --follow --outcome refused`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := asked.resolve(cmd, time.Now()); err != nil {
				return err
			}
			return a.printRecords(cmd, asked.filter)
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&asked.since, "since", "", "no records before this TIME")
	flags.StringVar(&asked.until, "until", "", "only records before this TIME")
	flags.StringVar(&asked.filter.Verb, "verb", "", "only this verb, or all that begin with this word")
	flags.StringVar(&asked.filter.User, "user", "", "only what this user did, by name or uid")
	flags.StringVar(&asked.filter.Outcome, "outcome", "", "only what ended so: ok or refused")
	flags.IntVar(&asked.filter.Limit, "limit", 0, "only the last N records")
	flags.BoolVar(&asked.filter.Follow, "follow", false, "go on with what is added")
	_ = cmd.RegisterFlagCompletionFunc("outcome", cobra.FixedCompletions(outcomes(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func outcomes() []string { return []string{"ok", "refused"} }

// resolve makes the filter of what was asked.
func (q *auditAsked) resolve(cmd *cobra.Command, now time.Time) (err error) {
	for _, t := range []struct {
		flag, text string
		into       *time.Time
	}{{"since", q.since, &q.filter.Since}, {"until", q.until, &q.filter.Until}} {
		if t.text == "" {
			continue
		}
		var ok bool
		if *t.into, ok = parseWhen(t.text, now); !ok {
			return usage(cmd, "--%s is a time such as 2026-01-02T15:04:05Z, 2026-01-02, 24h or 7d, not %q", t.flag, t.text)
		}
	}
	if cmd.Flags().Changed("limit") && q.filter.Limit < 1 {
		return usage(cmd, "--limit is a number from 1 on")
	}
	if q.filter.Outcome != "" && q.filter.Outcome != outcomes()[0] && q.filter.Outcome != outcomes()[1] {
		return usage(cmd, "--outcome is ok or refused, not %q", q.filter.Outcome)
	}
	return nil
}

// parseWhen reads a time, a day (its beginning here), or how long ago.
func parseWhen(text string, now time.Time) (time.Time, bool) {
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, true
	}
	if t, err := time.ParseInLocation(time.DateOnly, text, now.Location()); err == nil {
		return t, true
	}
	if days, is := strings.CutSuffix(text, "d"); is {
		n, err := strconv.ParseUint(days, 10, 16)
		return now.AddDate(0, 0, -int(n)), err == nil
	}
	ago, err := time.ParseDuration(text)
	return now.Add(-ago), err == nil && ago >= 0
}

// printRecords prints records as they come.
func (a *app) printRecords(cmd *cobra.Command, f control.AuditFilter) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	out := bufio.NewWriterSize(cmd.OutOrStdout(), 64<<10)
	p := printer(&peoplePrinter{out: out})
	switch {
	case a.json && f.Follow:
		p = &linePrinter{out: out}
	case a.json:
		p = &arrayPrinter{out: out}
	}
	err = a.receive(cmd, client, f, out, p)
	if err == nil {
		err = p.end()
	}
	if errOut := out.Flush(); err == nil && errOut != nil {
		return fmt.Errorf("printing the result: %w", errOut)
	}
	return err
}

// receive prints what the daemon sends. A person who waits for the first record sees that it goes on.
func (a *app) receive(cmd *cobra.Command, client *control.Client, f control.AuditFilter, out *bufio.Writer, p printer) error {
	stop := func() {}
	if !f.Follow {
		stop = a.meter(cmd).start()
	}
	first := true
	err := client.AuditList(cmd.Context(), f, func(rec control.AuditRecord) error {
		if first {
			first = false
			stop()
		}
		if err := p.print(rec); err != nil {
			return fmt.Errorf("printing the result: %w", err)
		}
		if f.Follow {
			return out.Flush()
		}
		return nil
	})
	if first {
		stop()
	}
	return err
}

// printer prints records one by one.
type printer interface {
	print(control.AuditRecord) error
	end() error
}

// peoplePrinter prints a line a record. Columns can't wait for the longest word.
type peoplePrinter struct {
	out   io.Writer
	begun bool
}

func (p *peoplePrinter) print(r control.AuditRecord) error {
	const columns = "%6s  %-20s  %-10s  %-18s  %-7s  %s\n"
	if !p.begun {
		p.begun = true
		fmt.Fprintf(p.out, columns, "SEQ", "TIME", "USER", "VERB", "OUTCOME", "WHAT")
	}
	what := []string{}
	for _, word := range []string{r.Resource, r.Message} {
		if word != "" {
			what = append(what, onOneLine(word))
		}
	}
	_, err := fmt.Fprintf(p.out, columns, strconv.FormatUint(r.Seq, 10), moment(r.Time), onOneLine(r.User), onOneLine(r.Verb), r.Outcome, strings.Join(what, ": "))
	return err
}

func (p *peoplePrinter) end() error { return nil }

// onOneLine keeps what a caller once sent from playing with the terminal of who reads it.
func onOneLine(s string) string {
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return strconv.Quote(s)
		}
	}
	return s
}

// linePrinter prints an object a line.
type linePrinter struct{ out io.Writer }

func (p *linePrinter) print(r control.AuditRecord) error {
	encoder := json.NewEncoder(p.out)
	encoder.SetEscapeHTML(false)
	return encoder.Encode(r)
}

func (p *linePrinter) end() error { return nil }

// arrayPrinter prints an array, an element a line, without holding it.
type arrayPrinter struct {
	out   io.Writer
	begun bool
}

func (p *arrayPrinter) print(r control.AuditRecord) error {
	before := map[bool]string{false: "[\n  ", true: ",\n  "}[p.begun]
	p.begun = true
	text, err := json.Marshal(r)
	if err == nil {
		_, err = fmt.Fprintf(p.out, "%s%s", before, text)
	}
	return err
}

func (p *arrayPrinter) end() error {
	_, err := io.WriteString(p.out, map[bool]string{false: "[]\n", true: "\n]\n"}[p.begun])
	return err
}
