package cli

import (
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"nbdcrypt/pkg/bench/iobench"
	"nbdcrypt/pkg/control"
)

// leastBenchSize gives eight connections a part of the disk each that is larger than what is in flight.
const leastBenchSize = 64 << 20

func (a *app) benchIO() *cobra.Command {
	var options iobench.Options
	var size string
	cmd := &cobra.Command{
		Use: "io", Short: "Measure the server beside other NBD servers",
		Long: `Start a daemon of its own with an encrypted disk, and beside it qemu-nbd with LUKS, nbdkit with its luks filter, nbdkit with a plain
file, and go-nbd on the same encrypted device as ours, each with a disk full of random data: first in memory, then on a file system.
Load each in turn with fio and nbdcopy over unix sockets, in several rounds whose order rotates, and print medians, our speed
as a multiple of each other's, and the processor time that each server took, which is that of its process alone.

Peers that are not installed are named and left out; without fio nothing can be measured. Everything lies in directories that are
removed at the end, after an interrupt too. Fewer --rounds and --seconds, or a choice of --only, --peers and --connections, make it shorter.`,
		Example: "  nbdcrypt bench io\n  nbdcrypt bench io --only read-1m,randread-4k --peers nbdkit --connections 1 --json",
		Args:    wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			var err error
			if options.Size, err = parseSize(cmd, size, 1<<20); err != nil {
				return err
			}
			if err := checkBenchIO(cmd, options); err != nil {
				return err
			}
			report, err := a.measuredIO(cmd, options)
			if err != nil {
				return err
			}
			return a.result(cmd, report, func(w io.Writer) { printBenchIO(w, report) })
		}),
	}
	flags := cmd.Flags()
	flags.StringSliceVar(&options.Only, "only", nil, "measure only these columns: "+strings.Join(iobench.Columns(), ", "))
	flags.StringSliceVar(&options.Peers, "peers", nil, "measure only these beside us: none, "+strings.Join(iobench.Peers(), ", "))
	flags.IntSliceVar(&options.Connections, "connections", []int{1, 8}, "the numbers of connections to measure with")
	flags.StringVar(&options.Dir, "dir", "", "a directory on the file system to measure (default a temporary one that is not memory)")
	flags.IntVar(&options.Rounds, "rounds", 5, "how often everything is measured")
	flags.Float64Var(&options.Seconds, "seconds", 1, "how long each measurement takes")
	flags.StringVar(&size, "size", "512M", "how large each disk is")
	_ = cmd.RegisterFlagCompletionFunc("only", cobra.FixedCompletions(iobench.Columns(), cobra.ShellCompDirectiveNoFileComp)) // the flags exist: it can't fail
	_ = cmd.RegisterFlagCompletionFunc("peers", cobra.FixedCompletions(append(iobench.Peers(), "none"), cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"connections", "rounds", "seconds", "size"} {
		_ = cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

func checkBenchIO(cmd *cobra.Command, o iobench.Options) error {
	for _, one := range o.Only {
		if !slices.Contains(iobench.Columns(), one) {
			return usage(cmd, "--only %q is none of the columns: %s", one, strings.Join(iobench.Columns(), ", "))
		}
	}
	for _, one := range o.Peers {
		if one != "none" && !slices.Contains(iobench.Peers(), one) {
			return usage(cmd, "--peers %q is none of the peers: %s", one, strings.Join(iobench.Peers(), ", "))
		}
	}
	for _, n := range o.Connections {
		if n < 1 || n > 64 {
			return usage(cmd, "--connections %d: it takes 1 to 64", n)
		}
	}
	switch {
	case len(o.Connections) == 0:
		return usage(cmd, "--connections is empty")
	case o.Rounds < 1:
		return usage(cmd, "--rounds %d: it takes one at least", o.Rounds)
	case !(o.Seconds >= 0.1 && o.Seconds <= 3600): // NaN too
		return usage(cmd, "--seconds %v: it takes 0.1 to 3600", o.Seconds)
	case o.Size < leastBenchSize:
		return usage(cmd, "--size %s is less than %s", humanSize(o.Size), humanSize(leastBenchSize))
	}
	return nil
}

// measuredIO measures, with the meter of a call to the daemon for a person who waits.
func (a *app) measuredIO(cmd *cobra.Command, options iobench.Options) (iobench.Report, error) {
	m := a.meter(cmd)
	defer m.start()()
	m.news(control.Job{Verb: "bench", Resource: "io"})
	options.Progress = func(done, total int) {
		m.news(control.Job{Verb: "bench", Resource: "io", Done: int64(done), Total: int64(total), Unit: "measurements"})
	}
	return iobench.Run(cmd.Context(), options)
}
