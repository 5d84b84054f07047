package cli

import (
	"cmp"
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
		fmt.Fprintf(t, "key\t%s\n", keyOf(d.Encrypted, d.Key))
		if d.HideHoles {
			fmt.Fprintln(t, "holes\thidden from clients")
		}
		if d.Shared {
			fmt.Fprintln(t, "shared\tcan be attached up to 16 times at once")
		}
		if d.Bootable {
			fmt.Fprintln(t, "bootable\ta server can boot from it")
		}
		if d.Server != nil {
			fmt.Fprintf(t, "server\t%s, its %s disk\n", d.Server.Name, d.Server.Role)
		}
		fmt.Fprintf(t, "status\t%s\n", d.Status)
		if d.Source != nil {
			fmt.Fprintf(t, "source\t%s %s\n", d.Source.Kind, d.Source.Name)
		}
		if d.Space != nil {
			fmt.Fprintf(t, "space\t%s\n", spaceWord(*d.Space))
		}
		fmt.Fprintf(t, "created\t%s\n", moment(d.Created))
		for _, layer := range d.Layers {
			fmt.Fprintf(t, "layer\t%s\n", layer.ID)
			printSegments(t, layer.Segments)
		}
		for _, at := range d.Attachments {
			printAttachment(t, at, d)
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

func printAttachment(t io.Writer, at control.Attachment, d control.Disk) {
	where := at.URI
	if where == "" && d.Server != nil { // what a server's export is called is for its runner alone
		where = "for server " + d.Server.Name
	}
	fmt.Fprintf(t, "attached\t%s%s\n", where, map[bool]string{true: ", read-only"}[at.ReadOnly])
	if d.Shared {
		fmt.Fprintf(t, "\tattachment %s\n", at.ID)
	}
	fmt.Fprintf(t, "\tby %s since %s, %s\n", at.By, moment(at.Since), count(at.Clients, "client", "clients"))
	if at.Device != nil {
		fmt.Fprintf(t, "\tdevice %s\n", *at.Device)
	}
	if at.Mount != "" {
		fmt.Fprintf(t, "\tmounted at %s\n", at.Mount)
	}
	for _, user := range at.Allow {
		fmt.Fprintf(t, "\topen for %s too\n", user)
	}
}

// keyOf tells what protects a disk. A state other than Enabled is worth a word: the disk can't be attached in it.
func keyOf(encrypted bool, key *control.DiskKey) string {
	switch {
	case !encrypted:
		return "none (plain)"
	case key == nil:
		return "unknown"
	case key.State != "Enabled":
		return cmp.Or(key.Alias, key.ID) + " (" + key.State + ")" // a deleted key has no alias
	}
	return key.Alias
}

// spaceWord tells what a disk takes in the pool.
func spaceWord(s control.DiskSpace) string {
	word := humanSize(s.Written) + " written"
	if s.Shared > 0 {
		word += ", " + humanSize(s.Shared) + " of it shared"
	}
	if s.Reserved > 0 {
		word += ", " + humanSize(s.Reserved) + " reserved for zeros"
	}
	return word
}
