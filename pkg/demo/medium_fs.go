package demo

import (
	"context"
	"fmt"
	"os"
	"time"

	"nbdcrypt/pkg/process"
)

// fileSystem mounts ext4 on a loop device over nbdfuse, the way the README tells.
type fileSystem struct{}

func (fileSystem) name() string {
	return "With a real file system: nbdfuse shows the disk as a file, and ext4 on that file is mounted."
}

func (fileSystem) put(ctx context.Context, t *tour, uri string, letters []letter) error {
	fuse, err := t.showAsFile(ctx, uri)
	if err != nil {
		return err
	}
	if err := t.tool(ctx, "mkfs.ext4", "-q", t.path("nbd", "disk")); err != nil {
		return err
	}
	if err := t.mounted(ctx, func() error { return t.writeFiles(letters) }); err != nil {
		return err
	}
	if err := t.hideFile(ctx, fuse); err != nil {
		return err
	}
	t.tell.done("unmounted, and with that flushed")
	return nil
}

func (fileSystem) get(ctx context.Context, t *tour, uri string, letters []letter) (read []letter, err error) {
	fuse, err := t.showAsFile(ctx, uri)
	if err != nil {
		return nil, err
	}
	err = t.mounted(ctx, func() error {
		for _, l := range letters {
			if l.text, err = os.ReadFile(t.path("mnt", l.name)); err != nil {
				return fmt.Errorf("reading it back: %w", err)
			}
			read = append(read, l)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return read, t.hideFile(ctx, fuse)
}

// showAsFile has nbdfuse show the disk as the file nbd/disk.
func (t *tour) showAsFile(ctx context.Context, uri string) (*process.Process, error) {
	if missing(t.path("mnt")) {
		if err := t.tool(ctx, "mkdir", t.path("nbd"), t.path("mnt")); err != nil {
			return nil, err
		}
	}
	words := []string{"nbdfuse", t.path("nbd", "disk"), uri}
	t.tell.beside(words...)
	fuse, err := t.launch(nil, words...)
	if err != nil {
		return nil, err
	}
	t.others = append(t.others, fuse)
	err = until(ctx, "nbdfuse to show the disk", func() bool {
		_, err := os.Stat(t.path("nbd", "disk"))
		return err == nil || fuse.Ended()
	})
	if err == nil && fuse.Ended() {
		err = fmt.Errorf("nbdfuse ended at once: %v", fuse.How())
	}
	return fuse, err
}

// handOnTime is how long nbdfuse may take to hand on what was written.
const handOnTime = 20 * time.Second

// hideFile ends that. What nbdfuse has not handed on yet is handed on before it ends.
func (t *tour) hideFile(ctx context.Context, fuse *process.Process) error {
	if err := t.tool(ctx, "umount", t.path("nbd")); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, handOnTime)
	defer cancel()
	return fuse.Wait(ctx)
}

// mounted does something while the file system is mounted.
func (t *tour) mounted(ctx context.Context, do func() error) error {
	if err := t.tool(ctx, "mount", "-o", "loop", t.path("nbd", "disk"), t.path("mnt")); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	if err := t.tool(ctx, "umount", t.path("mnt")); err != nil {
		return err
	}
	// The kernel lets go of the loop device in its own time, and of nbd/disk only then.
	return until(ctx, "the loop device to be gone", func() bool { return len(loopsUnder(t.path("nbd"))) == 0 })
}

func (t *tour) writeFiles(letters []letter) error {
	for _, l := range letters {
		if err := os.WriteFile(t.path("mnt", l.name), l.text, 0o600); err != nil {
			return fmt.Errorf("writing a file: %w", err)
		}
		t.tell.done(fmt.Sprintf("written: $D/mnt/%s, %d bytes, sha256 %s", l.name, len(l.text), l.sum()))
	}
	return nil
}
