package cli

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/bench/iobench"
	"nbdcrypt/pkg/control"
)

func (a *app) benchLayers() *cobra.Command {
	var options iobench.LayersOptions
	var size, disk, written string
	cmd := &cobra.Command{
		Use: "layers", Short: "Measure what snapshots and backups cost",
		Long: `Start a daemon of its own, and measure what snapshots cost with it: how long the longest answer takes while a snapshot of a large disk
is made and small blocks are written all over it, beside one sync of the same file system in the same moments; how fast reads are through
many layers, beside one; how fast each block is written once after a snapshot, beside before it; and how fast a full backup is made, and a disk made of it,
beside cp of the file that the disk lies in, with a sync.

Of the large disk only a map is there that says what is written: it takes little space. Ratios are made within a round, and what counts is
their median. Everything lies in a directory that is removed at the end, after an interrupt too. fio makes the load.`,
		Example: "  nbdcrypt bench layers\n  nbdcrypt bench layers --rounds 1 --size 64M --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			for _, s := range []struct {
				text string
				into *int64
			}{{size, &options.Size}, {disk, &options.Disk}, {written, &options.Written}} {
				var err error
				if *s.into, err = parseSize(cmd, s.text, 4096); err != nil {
					return err
				}
			}
			if err := checkBenchLayers(cmd, options); err != nil {
				return err
			}
			report, err := a.measuredLayers(cmd, options)
			if err != nil {
				return err
			}
			return a.result(cmd, report, func(w io.Writer) { printBenchLayers(w, report) })
		}),
	}
	flags := cmd.Flags()
	flags.IntVar(&options.Rounds, "rounds", 5, fmt.Sprintf("how often everything is measured, at most %d times", iobench.MostLayerRounds))
	flags.Float64Var(&options.Seconds, "seconds", 1, "how long each measurement takes")
	flags.StringVar(&options.Dir, "dir", "", "a directory on the file system to measure (default a temporary one that is not memory)")
	flags.StringVar(&size, "size", "512M", "how large the disks are that are read, written and backed up")
	flags.StringVar(&disk, "disk", "1T", "how large the disk is that snapshots are timed with")
	flags.StringVar(&written, "written", "100G", "how much of it is written")
	for _, name := range []string{"rounds", "seconds", "size", "disk", "written"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions) // the flags exist: it can't fail
	}
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

func checkBenchLayers(cmd *cobra.Command, o iobench.LayersOptions) error {
	switch {
	case o.Rounds < 1 || o.Rounds > iobench.MostLayerRounds:
		return usage(cmd, "--rounds %d: it takes one at least, and %d at most", o.Rounds, iobench.MostLayerRounds)
	case o.Seconds < 0.1:
		return usage(cmd, "--seconds %v: it takes 0.1 at least", o.Seconds)
	case o.Size < 16<<20:
		return usage(cmd, "--size %s: it takes 16 MiB at least", humanSize(o.Size))
	case o.Written < 1<<20 || o.Written > o.Disk:
		return usage(cmd, "--written %s: it takes 1 MiB at least, and no more than --disk", humanSize(o.Written))
	}
	return nil
}

func (a *app) measuredLayers(cmd *cobra.Command, options iobench.LayersOptions) (iobench.LayersReport, error) {
	m := a.meter(cmd)
	defer m.start()()
	m.news(control.Job{Verb: "bench", Resource: "layers"})
	options.Progress = func(done, total int) {
		m.news(control.Job{Verb: "bench", Resource: "layers", Done: int64(done), Total: int64(total), Unit: "steps"})
	}
	return iobench.Layers(cmd.Context(), options)
}

func printBenchLayers(w io.Writer, r iobench.LayersReport) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %s, %s, Linux %s\n", m.Processor, count(m.Processors, "processor", "processors"), humanSize(m.Memory), m.Kernel)
	fmt.Fprintf(w, "nbdcrypt %s, encrypted disks of %s on %s at %s, medians of %s\n\n", r.Version, humanSize(r.Size), r.FileSystem, r.Dir,
		count(r.Rounds, "round", "rounds"))
	s := r.Snapshot
	fmt.Fprintf(w, "snapshots of a disk of %s with %s written, while 4 KiB are written\n\n", humanSize(s.Disk), humanSize(s.Written))
	printDelays(w, []delay{{"longest answer before", s.Calm}, {"one sync meanwhile", s.Sync}, {"longest answer", s.Longest},
		{"that beyond one sync", s.Beyond}, {"the command", s.Command}})
	fmt.Fprintln(w)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "WHAT\tGB/s\tBESIDE\tGB/s\tRATIO\tLEAST\tGREATEST\tGOAL\tREACHED")
		row := func(what, beside string, of iobench.Share) {
			fmt.Fprintf(t, "%s\t%.2f\t%s\t%.2f\t%.2f\t%.2f\t%.2f\t%.2f\t%s\n", what, of.BytesPerSecond/1e9, beside, of.Beside/1e9,
				of.Ratio.Median, of.Ratio.Min, of.Ratio.Max, of.Goal, yesNo(of.Met))
		}
		for _, one := range r.Reads {
			row(fmt.Sprintf("%s, %d layers", one.What, one.Layers), "1 layer", one)
		}
		for _, one := range r.Writes {
			row(one.What+", after a snapshot", "before", one)
		}
		for _, one := range r.Copies {
			row(one.What, "cp and sync", one)
		}
	})
}
