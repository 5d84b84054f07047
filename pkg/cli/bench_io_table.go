package cli

import (
	"fmt"
	"io"
	"strings"

	"nbdcrypt/pkg/bench/iobench"
)

func printBenchIO(w io.Writer, r iobench.Report) {
	printBenchOn(w, r)
	for _, at := range r.Sites {
		fmt.Fprintf(w, "\n%s: %s at %s\n\n", at.Name, at.FileSystem, at.Dir)
		rows := rowsOf(r, at.Name)
		printServers(w, r, "SPEED", rows, speed)
		if len(r.Servers) > 1 {
			fmt.Fprintln(w)
			printRatios(w, r, rows)
		}
		fmt.Fprintln(w)
		printServers(w, r, "PROCESSOR TIME OF THE SERVER", rows, processorTime)
		printFailures(w, rows)
	}
	printCPU(w, r)
}

// printBenchOn says what was measured, and with what.
func printBenchOn(w io.Writer, r iobench.Report) {
	m := r.Machine
	fmt.Fprintf(w, "%s, %s, %s, Linux %s\n", m.Processor, count(m.Processors, "processor", "processors"), humanSize(m.Memory), m.Kernel)
	table(w, func(t io.Writer) {
		for _, v := range append(r.Servers, r.Tools...) {
			fmt.Fprintf(t, "%s\t%s\t%s\n", v.Name, v.About, v.Version)
		}
	})
	for _, m := range r.Missing {
		text := fmt.Sprintf("%s was not measured: %s is missing", m.What, m.Tool)
		if m.Package != "" {
			text += ", install the package " + m.Package
		}
		fmt.Fprintln(w, text)
	}
	fmt.Fprintf(w, "disks of %s, medians of %s of %v s\n", humanSize(r.Size), count(r.Rounds, "round", "rounds"), r.Seconds)
}

func rowsOf(r iobench.Report, site string) (rows []iobench.Row) {
	for _, row := range r.Rows {
		if row.Site == site {
			rows = append(rows, row)
		}
	}
	return rows
}

// printServers prints one figure of every server in every row.
func printServers(w io.Writer, r iobench.Report, title string, rows []iobench.Row, figure func(iobench.Row, iobench.Result) string) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "%s\tCONNECTIONS", title)
		for _, v := range r.Servers {
			fmt.Fprintf(t, "\t%s", v.Name)
		}
		fmt.Fprintln(t)
		for _, row := range rows {
			fmt.Fprintf(t, "%s\t%d", row.About, row.Connections)
			for _, one := range row.Results {
				fmt.Fprintf(t, "\t%s", orDash(one, figure(row, one)))
			}
			fmt.Fprintln(t)
		}
	})
}

// orDash is a dash for what was never measured, and a mark at what failed in some rounds.
func orDash(one iobench.Result, figure string) string {
	switch {
	case one.BytesPerSecond == 0:
		return "-"
	case one.Failures > 0:
		return figure + " *"
	}
	return figure
}

func speed(row iobench.Row, one iobench.Result) string {
	if row.Large() {
		return fmt.Sprintf("%.0f MB/s", float64(one.BytesPerSecond)/1e6)
	}
	return fmt.Sprintf("%.1f k/s", float64(one.OpsPerSecond)/1e3)
}

func processorTime(row iobench.Row, one iobench.Result) string {
	if row.Large() {
		return fmt.Sprintf("%.2f s/GiB", one.CPUPerGiB)
	}
	return fmt.Sprintf("%.2f s/100k", one.CPUPerOps)
}

// printRatios prints our speed as a multiple of the others'.
func printRatios(w io.Writer, r iobench.Report, rows []iobench.Row) {
	table(w, func(t io.Writer) {
		fmt.Fprint(t, "OUR SPEED AS A MULTIPLE OF\tCONNECTIONS")
		for _, v := range r.Servers[1:] {
			fmt.Fprintf(t, "\t%s", v.Name)
		}
		fmt.Fprintln(t)
		for _, row := range rows {
			cells := map[string]string{}
			for _, ratio := range row.Ratios {
				cells[ratio.Peer] = multiple(ratio)
			}
			fmt.Fprintf(t, "%s\t%d", row.About, row.Connections)
			for _, v := range r.Servers[1:] {
				fmt.Fprintf(t, "\t%s", dash(cells[v.Name]))
			}
			fmt.Fprintln(t)
		}
	})
	fmt.Fprintln(w, "medians of the rounds' ratios, with the least and the greatest; behind <, what the project wants and this is not")
}

// multiple says by how much, in which bounds, and where that is less than it should be, what it should be.
func multiple(r iobench.Ratio) string {
	text := fmt.Sprintf("%.2f (%.2f..%.2f)", r.Median, r.Min, r.Max)
	if !r.Met() {
		text += fmt.Sprintf(" <%.1f", r.Goal)
	}
	return text
}

func dash(text string) string {
	if text == "" {
		return "-"
	}
	return text
}

// printFailures tells of each server why it failed, once for each reason.
func printFailures(w io.Writer, rows []iobench.Row) {
	where := map[string][]string{}
	var reasons []string
	for _, row := range rows {
		for _, one := range row.Results {
			if one.Failures == 0 {
				continue
			}
			reason := one.Server + ": " + one.Failed
			if where[reason] == nil {
				reasons = append(reasons, reason)
			}
			where[reason] = append(where[reason], fmt.Sprintf("%s ×%d, %d of %d", row.Column, row.Connections, one.Failures, len(one.Rounds)))
		}
	}
	for _, reason := range reasons {
		fmt.Fprintf(w, "\n* %s\n  in the rounds of %s\n", reason, strings.Join(where[reason], "; "))
	}
}

// printCPU prints whether encrypting costs more than the cipher.
func printCPU(w io.Writer, r iobench.Report) {
	if len(r.CPU) == 0 {
		return
	}
	fmt.Fprintf(w, "\nprocessor time in seconds per GiB, beside nbdkit's for a plain file and the cipher's own (%s); within their sum and 20 %%?\n\n", r.Cipher.Impl)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "SITE\tCOLUMN\tCONNECTIONS\tOURS\tNBDKIT\tCIPHER\tLIMIT\tWITHIN")
		for _, v := range r.CPU {
			fmt.Fprintf(t, "%s\t%s\t%d\t%.3f\t%.3f\t%.3f\t%.3f\t%s\n", v.Site, v.Column, v.Connections, v.Ours, v.Plain, v.Cipher, v.Limit, yesNo(v.Met))
		}
	})
}
