package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/bench"
	"nbdcrypt/pkg/control"
)

func (a *app) bench() *cobra.Command {
	return group("bench", "Measure what this machine can do", "Measure, without the daemon that runs here, how fast things are on this machine.",
		"  nbdcrypt bench cipher\n  nbdcrypt bench io", a.benchCipher(), a.benchIO(), a.benchLayers(), a.benchScale())
}

func (a *app) benchCipher() *cobra.Command {
	var options bench.Options
	cmd := &cobra.Command{
		Use: "cipher", Short: "Measure the cipher, beside the processor's AES rounds alone",
		Long: `Measure XTS-AES-256 on one core: each implementation that this processor and build can run, both operations, both sizes of sector, and
calls with runs of 512 bytes to 1 MiB, in place. The daemon uses the implementation that is listed first.

The ceiling is the processor's AES rounds alone, on its widest registers and without memory. Short slices of it and of the cipher take
turns, and the figures are medians of many rounds, so that neither another frequency nor other work in turn changes a share of the
ceiling much. Work beside it on the same core, another virtual machine's too, does: it takes more from a cipher than from the ceiling.
Where two calls differ, trust the higher figures. Runs of 1 MiB exceed the L2 cache of many processors, and may show the memory's speed.`,
		Example: "  nbdcrypt bench cipher\n  nbdcrypt bench cipher --impl generic --rounds 11 --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			if err := checkBench(cmd, options); err != nil {
				return err
			}
			report, err := a.measured(cmd, options)
			if err != nil {
				return err
			}
			return a.result(cmd, control.List(report.Rows), func(w io.Writer) { printBench(w, report, options.Rounds) })
		}),
	}
	cmd.Flags().StringArrayVar(&options.Impls, "impl", nil, "measure only this implementation (may be repeated)")
	cmd.Flags().IntVar(&options.Rounds, "rounds", bench.Rounds, "how often everything is measured")
	_ = cmd.RegisterFlagCompletionFunc("impl", cobra.FixedCompletions(bench.Implementations(), cobra.ShellCompDirectiveNoFileComp)) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("rounds", cobra.NoFileCompletions)
	return cmd
}

func checkBench(cmd *cobra.Command, options bench.Options) error {
	known := bench.Implementations()
	for _, impl := range options.Impls {
		if !slices.Contains(known, impl) {
			return usage(cmd, "--impl %q is none that this processor and build can run: %s", impl, strings.Join(known, ", "))
		}
	}
	if options.Rounds < 1 {
		return usage(cmd, "--rounds %d: it takes one at least", options.Rounds)
	}
	return nil
}

// measured measures, with the meter of a call to the daemon for a person who waits.
func (a *app) measured(cmd *cobra.Command, options bench.Options) (bench.Report, error) {
	m := a.meter(cmd)
	defer m.start()()
	options.Progress = func(done, total int) {
		m.news(control.Job{Verb: "bench", Resource: "cipher", Done: int64(done), Total: int64(total), Unit: "slices"})
	}
	return bench.Cipher(cmd.Context(), options)
}

func printBench(w io.Writer, r bench.Report, rounds int) {
	fmt.Fprintln(w, ceiling(r.Ceilings))
	fmt.Fprintf(w, "one core, medians of %s\n\n", count(rounds, "round", "rounds"))
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "IMPL\tOP\tSECTOR\tRUN\tGB/s\tOF CEILING")
		for _, row := range r.Rows {
			share := "-"
			if row.OfCeiling != nil {
				share = fmt.Sprintf("%.2f", *row.OfCeiling)
			}
			fmt.Fprintf(t, "%s\t%s\t%d\t%s\t%5.2f\t%s\n", row.Impl, row.Op, row.SectorSize, humanSize(int64(row.RunBytes)), gigabytes(row.BytesPerSecond), share)
		}
	})
}

// ceiling is the heading that says what rows are compared with.
func ceiling(widths []bench.Ceiling) string {
	if len(widths) == 0 {
		return "ceiling: none, because this processor or this build has no AES instructions"
	}
	text := fmt.Sprintf("ceiling: %.2f GB/s, AES-256 rounds alone on registers of %d bits", gigabytes(widths[0].BytesPerSecond), widths[0].Bits)
	for _, w := range widths[1:] {
		text += fmt.Sprintf("; %.2f on %d", gigabytes(w.BytesPerSecond), w.Bits)
	}
	return text
}

func gigabytes(perSecond int64) float64 { return float64(perSecond) / 1e9 }
