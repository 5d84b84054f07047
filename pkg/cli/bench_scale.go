package cli

import (
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/bench/iobench"
	"nbdcrypt/pkg/control"
)

func (a *app) benchScale() *cobra.Command {
	var options iobench.ScaleOptions
	var size string
	cmd := &cobra.Command{
		Use: "scale", Short: "Measure what many disks and connections take",
		Long: `Start a daemon of its own with many encrypted disks, attach them all, open many connections, and print what each idle one takes of the
daemon's memory; then how long it takes to attach one more disk and to detach it again, beside two syncs of the same file system
in the same moments. Then another daemon with a full catalog: very many disks, as records alone, all of one project and but for ten under one key,
and keys in projects of 100. It is timed how long it takes to start, after a stop and after a kill, and commands from start to end. Everything lies in a
directory that is removed at the end, after an interrupt too.

Who is not root may open 512 connections at a time, and everybody together 1024.`,
		Example: "  nbdcrypt bench scale\n  nbdcrypt bench scale --disks 100 --connections 100 --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			var err error
			if options.Size, err = parseSize(cmd, size, 4096); err != nil {
				return err
			}
			if options.Disks < 1 || options.Connections < 1 || options.StoredDisks < 1 || options.StoredKeys < 1 {
				return usage(cmd, "--disks %d --connections %d --stored-disks %d --stored-keys %d: it takes one of each at least",
					options.Disks, options.Connections, options.StoredDisks, options.StoredKeys)
			}
			report, err := a.measuredScale(cmd, options)
			if err != nil {
				return err
			}
			return a.result(cmd, report, func(w io.Writer) { printBenchScale(w, report) })
		}),
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Disks, "disks", 1000, "how many disks are attached")
	flags.IntVar(&options.Connections, "connections", a.manyConnections(), "how many connections there are")
	flags.IntVar(&options.StoredDisks, "stored-disks", 100_000, "how many disks are in the full catalog")
	flags.IntVar(&options.StoredKeys, "stored-keys", 10_000, "how many keys are in it")
	flags.StringVar(&options.Dir, "dir", "", "a directory on the file system to measure (default a temporary one that is not memory)")
	flags.StringVar(&size, "size", "1G", "how large each disk is; it takes no space")
	for _, name := range []string{"disks", "connections", "stored-disks", "stored-keys", "size"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // the flags exist: it can't fail
	}
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

// manyConnections is as many round hundreds as one user may open.
func (a *app) manyConnections() int {
	if a.hooks.Env.UID == 0 {
		return 1000
	}
	return 500
}

func (a *app) measuredScale(cmd *cobra.Command, options iobench.ScaleOptions) (iobench.ScaleReport, error) {
	m := a.meter(cmd)
	defer m.start()()
	m.news(control.Job{Verb: "bench", Resource: "scale"})
	options.Fill = a.hooks.Fill
	options.Progress = func(done, total int) {
		m.news(control.Job{Verb: "bench", Resource: "scale", Done: int64(done), Total: int64(total), Unit: "steps"})
	}
	return iobench.Scale(cmd.Context(), options)
}

func printBenchScale(w io.Writer, r iobench.ScaleReport) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %s, %s, Linux %s\n", m.Processor, count(m.Processors, "processor", "processors"), humanSize(m.Memory), m.Kernel)
	fmt.Fprintf(w, "nbdcrypt %s, encrypted disks of %s on %s at %s\n\n", r.Version, humanSize(r.Size), r.FileSystem, r.Dir)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "MEMORY OF EACH IDLE\tNUMBER\tRESIDENT\tOF IT GO'S\tLIMIT\tWITHIN")
		for _, row := range []struct {
			what string
			of   iobench.Footprint
		}{{"attached disk", r.Attachment}, {"connection", r.Connection}} {
			fmt.Fprintf(t, "%s\t%d\t%s\t%s\t%s\t%s\n", row.what, row.of.Number, humanSize(row.of.Resident), humanSize(row.of.Go), humanSize(row.of.Limit), yesNo(row.of.Met))
		}
	})
	fmt.Fprintf(w, "\nwith %s attached\n\n", count(r.Attachment.Number, "disk", "disks"))
	printDelays(w, []delay{{"two syncs", r.Sync}, {"attach", r.Attach}, {"detach", r.Detach}})
	s := r.Stored
	fmt.Fprintf(w, "\nwith %s and %s in %s in the catalog\n\n", count(s.Disks, "disk", "disks"), count(s.Keys, "key", "keys"), count(s.Projects, "project", "projects"))
	printDelays(w, []delay{{"start", s.Start}, {"start after a kill", s.Restart}, {"disk list", s.List}, {"disk list --json", s.ListJSON},
		{"key uses, nearly all disks", s.UsesMany}, {"key uses, ten disks", s.UsesFew}, {"two syncs", s.Sync}, {"attach", s.Attach}})
}

// delay is a row: what took so long.
type delay struct {
	what string
	of   iobench.Delay
}

func printDelays(w io.Writer, rows []delay) {
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "TIME OF\tMEDIAN\tLEAST\tGREATEST\tLIMIT\tWITHIN")
		for _, row := range rows {
			limit, within := "-", "-"
			if row.of.Limit > 0 {
				limit, within = milliseconds(row.of.Limit), yesNo(row.of.Met)
			}
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", row.what, milliseconds(row.of.Median), milliseconds(row.of.Min), milliseconds(row.of.Max), limit, within)
		}
	})
}

func milliseconds(seconds float64) string {
	return fmt.Sprintf("%.2f ms", seconds*float64(time.Second/time.Millisecond))
}
