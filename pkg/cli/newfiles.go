package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// outFiles are new files for what is told only once: made before it is asked for, so that there is a place for it.
type outFiles struct {
	files []*os.File
	kept  bool
}

// newFile makes a file that only its owner may read, and overwrites nothing.
func newFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil, refusal.New(refusal.Busy, "choose another name, or remove it first", "%s exists already", path)
	}
	if err != nil {
		return nil, fileRefusal(path, err)
	}
	return f, nil
}

func fileRefusal(path string, err error) error {
	var refused *refusal.Error
	if errors.As(err, &refused) {
		return err
	}
	return refusal.New(refusal.Failed, "see that there is room, and that you may write there", "%s can't be written: %w", path, err)
}

// sheetFiles makes as many files as a kit has sheets: NAME for one, NAME-1 and so on for more, none where no name was given.
func sheetFiles(name string, count int) (*outFiles, error) {
	var paths []string
	for n := range count {
		switch {
		case name == "":
		case count == 1:
			paths = append(paths, name)
		default:
			paths = append(paths, fmt.Sprintf("%s-%d", name, n+1))
		}
	}
	return newFiles(paths...)
}

// newFiles makes all of these files, or none.
func newFiles(paths ...string) (*outFiles, error) {
	f := &outFiles{}
	for _, path := range paths {
		file, err := newFile(path)
		if err != nil {
			f.drop()
			return nil, err
		}
		f.files = append(f.files, file)
	}
	return f, nil
}

// write writes one of them, down to the disk.
func (f *outFiles) write(n int, text []byte) error {
	_, err := f.files[n].Write(text)
	if err = errors.Join(err, f.files[n].Sync()); err != nil {
		return fmt.Errorf("%s: %w", f.files[n].Name(), err)
	}
	return nil
}

// keep says that all were written.
func (f *outFiles) keep() { f.kept = true }

// drop closes the files, and removes them unless they are to be kept.
func (f *outFiles) drop() {
	for _, file := range f.files {
		_ = file.Close()
		if !f.kept {
			_ = os.Remove(file.Name())
		}
	}
}

// stayOnBrokenPipe makes a pipe that nobody reads an error of writing, as a full disk is: by default it ends the program there.
func stayOnBrokenPipe() { signal.Ignore(unix.SIGPIPE) }

// takeBack removes a slot whose secret could not be told: nobody has it, and it must not count as a way to open the root key.
func (a *app) takeBack(cmd *cobra.Command, slot control.Slot, why error) error {
	_, err := talk(a, cmd, func(ctx context.Context, c *control.Client) (control.Slot, error) {
		return c.SlotRemove(context.WithoutCancel(ctx), slot.ID, true)
	})
	if err != nil {
		return refusal.New(refusal.Failed, "run `nbdcrypt root slot remove "+slot.ID+"`: nobody has what opens it", "%w; slot %s was made, and is still there: %w", why, slotWord(slot), err)
	}
	return refusal.New(refusal.Failed, "see that it can be written, then make it again", "%w; slot %s was removed again", why, slotWord(slot))
}
