package cli

import (
	"fmt"
	"io"
	"path/filepath"

	"nbdcrypt/pkg/control"
)

func printDisk(w io.Writer, d control.Disk) {
	table(w, func(t io.Writer) {
		fmt.Fprintf(t, "name\t%s\n", d.Name)
		fmt.Fprintf(t, "id\t%s\n", d.ID)
		fmt.Fprintf(t, "project\t%s\n", d.Project)
		fmt.Fprintf(t, "size\t%s\n", exactSize(d.Size))
		fmt.Fprintf(t, "sector size\t%d\n", d.SectorSize)
		fmt.Fprintf(t, "key\t%s\n", keyOf(d))
		if d.HideHoles {
			fmt.Fprintln(t, "holes\thidden from clients")
		}
		fmt.Fprintf(t, "status\t%s\n", d.Status)
		if d.Source != nil {
			fmt.Fprintf(t, "source\t%s %s\n", d.Source.Kind, d.Source.Name)
		}
		fmt.Fprintf(t, "created\t%s\n", moment(d.Created))
		for _, layer := range d.Layers {
			fmt.Fprintf(t, "layer\t%s\n", layer.ID)
			printSegments(t, layer.Segments)
		}
		for _, at := range d.Attachments {
			printAttachment(t, at)
		}
	})
}

// fewSegments are named one by one; of more the first and the last tell enough.
const fewSegments = 4

func printSegments(t io.Writer, paths []string) {
	if n := len(paths); n > fewSegments {
		fmt.Fprintf(t, "\t%s\n\t… to %s (%d files)\n", paths[0], filepath.Base(paths[n-1]), n)
		return
	}
	for _, path := range paths {
		fmt.Fprintf(t, "\t%s\n", path)
	}
}

func printAttachment(t io.Writer, at control.Attachment) {
	fmt.Fprintf(t, "attached\t%s%s\n", at.URI, map[bool]string{true: ", read-only"}[at.ReadOnly])
	fmt.Fprintf(t, "\tby %s since %s, %s\n", at.By, moment(at.Since), count(at.Clients, "client", "clients"))
	for _, user := range at.Allow {
		fmt.Fprintf(t, "\topen for %s too\n", user)
	}
}

// keyOf tells what protects a disk. A state other than Enabled is worth a word: the disk can't be attached in it.
func keyOf(d control.Disk) string {
	switch {
	case !d.Encrypted:
		return "none (plain)"
	case d.Key == nil:
		return "unknown"
	case d.Key.State != "Enabled":
		return d.Key.Alias + " (" + d.Key.State + ")"
	}
	return d.Key.Alias
}
