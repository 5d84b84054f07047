package cli

import (
	"fmt"
	"io"

	"nbdcrypt/pkg/control"
)

func printServer(w io.Writer, s control.Server) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "name\t%s\n", s.Name)
		fmt.Fprintf(t, "id\t%s\n", s.ID)
		fmt.Fprintf(t, "project\t%s\n", s.Project)
		fmt.Fprintf(t, "status\t%s\n", s.Status)
		printRun(t, s)
		fmt.Fprintf(t, "image\t%s\n", imageOf(s.Image))
		if s.Group != nil {
			fmt.Fprintf(t, "scaling group\t%s\n", s.Group.Name)
		}
		printMachine(t, s.CPUs, s.Memory, s.Network)
		fmt.Fprintf(t, "created\t%s\n", moment(s.Created))
	})
	if len(s.Disks) == 0 {
		return
	}
	fmt.Fprintln(w)
	table(w, func(t io.Writer) {
		fmt.Fprintln(t, "DISK\tNAME\tSIZE\tKEY\tSTATUS\tID")
		for _, d := range s.Disks {
			fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\t%s\n", d.Role, d.Name, humanSize(d.Size), keyOf(d.Encrypted, d.Key), d.Status, d.ID)
		}
	})
}

// printRun tells of the run that there is, and how the last one ended.
func printRun(t io.Writer, s control.Server) {
	if s.By != "" {
		fmt.Fprintf(t, "run by\t%s\n", s.By)
	}
	if s.Since != nil {
		fmt.Fprintf(t, "runs since\t%s\n", moment(*s.Since))
	}
	if s.PID != 0 {
		fmt.Fprintf(t, "QEMU\tprocess %d, %s\n", s.PID, s.Accelerator)
	}
	if s.Console != "" {
		fmt.Fprintf(t, "console\t%s\n", s.Console)
	}
	if s.Ended != "" {
		fmt.Fprintf(t, "last run\t%s\n", s.Ended)
	}
}

func printMachine(t io.Writer, cpus int, memory int64, network string) {
	fmt.Fprintf(t, "processors\t%d\n", cpus)
	fmt.Fprintf(t, "memory\t%s\n", humanSize(memory))
	fmt.Fprintf(t, "network\t%s\n", network)
}

// imageOf is the image that a system disk was made of; a server whose system disk was not may have none.
func imageOf(s *control.DiskSource) string {
	if s == nil {
		return "none"
	}
	return s.Name
}

func groupOf(g *control.Ref) string {
	if g == nil {
		return "none"
	}
	return g.Name
}
