package imagefile

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/refusal"
)

// startTime is how long qemu-nbd may take until it serves.
const startTime = 20 * time.Second

// socketName is of qemu-nbd's socket, in a directory that is ours alone.
const socketName = "nbd.sock"

// openWithQEMU has qemu-nbd read the file, in the format that it was found or said to be, and serve it read-only on a socket that nobody
// else gets at. It is given an open descriptor and no name: what an image names has no directory to be found in.
func (i *Image) openWithQEMU(ctx context.Context, file *os.File) error {
	if i.Format == VMDK {
		if err := oneVMDK(i.path, file); err != nil {
			return err
		}
	}
	if err := i.ask(ctx, file); err != nil {
		return err
	}
	if err := i.whole(ctx, file); err != nil {
		return err
	}
	q, err := serve(ctx, file, i.Format)
	if err != nil {
		return i.gaveUp(err)
	}
	i.Size, i.reader = q.Size(), q
	end := i.close
	i.close = func() error { return errors.Join(q.end(), end()) }
	return nil
}

func (i *Image) gaveUp(err error) error {
	return refusal.New(refusal.Failed, "see to the file, or convert it first: `qemu-img convert -O qcow2`", "%s can't be read as %s: %w", i.path, i.Format, err)
}

// oneVMDK refuses what QEMU would look for other files for: a descriptor, by itself or in a file without a disk.
func oneVMDK(path string, file *os.File) error {
	const withoutData = "describes the files that hold its data"
	head := make([]byte, 20)
	if _, err := file.ReadAt(head, 0); err != nil {
		return damaged(path, VMDK, "%v", err)
	}
	switch {
	case bytes.HasPrefix(head, []byte("# Disk Descr")):
		return leansOn(path, withoutData)
	case !bytes.HasPrefix(head, []byte("KDMV")):
		return damaged(path, VMDK, "it does not begin like one")
	case binary.LittleEndian.Uint64(head[12:]) == 0:
		return leansOn(path, withoutData)
	}
	return nil
}

// options name the file for QEMU: the third descriptor. Nothing is opened that the image stands on.
func options(format string) string {
	text, _ := json.Marshal(map[string]any{ // texts: it can't fail
		"driver": format, "read-only": true, "backing": nil, "file": map[string]any{"driver": "file", "filename": "/proc/self/fd/3"},
	})
	return "json:" + string(text)
}

func command(ctx context.Context, file *os.File, name string, args ...string) (*exec.Cmd, error) {
	path, err := exec.LookPath(name)
	if err != nil {
		return nil, refusal.New(refusal.Failed, "install it (Debian: qemu-utils), or convert the image to raw or qcow2 elsewhere", "%s is needed to read this format, and is not there", name)
	}
	cmd := process.Quiet(exec.CommandContext(ctx, path, args...))
	cmd.ExtraFiles = []*os.File{file}
	return cmd, nil
}

// ask has qemu-img tell what the image stands on.
func (i *Image) ask(ctx context.Context, file *os.File) error {
	cmd, err := command(ctx, file, "qemu-img", "info", "--output=json", options(i.Format))
	if err != nil {
		return err
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	text, err := cmd.Output()
	if ctx.Err() != nil {
		return i.gaveUp(ctx.Err())
	}
	if err != nil { // the file is open: it is what stands in it
		return damaged(i.path, i.Format, "%v", because(&said, err))
	}
	var info struct {
		Backing   string `json:"backing-filename"`
		Encrypted bool   `json:"encrypted"`
	}
	if err := json.Unmarshal(text, &info); err != nil {
		return i.gaveUp(fmt.Errorf("qemu-img: %w", err))
	}
	switch {
	case info.Backing != "":
		return leansOn(i.path, "stands on another image")
	case info.Encrypted:
		return refusal.New(refusal.Usage, "decrypt it with what encrypted it, and send what it holds through a pipe: --from-file -", "%s is refused: it is encrypted already", i.path)
	}
	return nil
}

// because puts what a program said last in place of its exit status.
func because(said *bytes.Buffer, err error) error {
	text := strings.TrimSpace(said.String())
	if text == "" {
		return err
	}
	lines := strings.Split(text, "\n")
	return errors.New(strings.ReplaceAll(lines[len(lines)-1], "'json:", "'"))
}

// served is an image that qemu-nbd serves.
type served struct {
	*nbdclient.Client
	process *process.Process
	dir     string
}

func serve(ctx context.Context, file *os.File, format string) (*served, error) {
	dir, err := process.TempDir(socketName)
	if err != nil {
		return nil, err
	}
	socket := filepath.Join(dir, socketName)
	q := &served{dir: dir}
	cmd, err := command(context.WithoutCancel(ctx), file, "qemu-nbd", "--read-only", "--persistent", "--socket", socket, options(format))
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	var said bytes.Buffer
	cmd.Stderr = &said
	if q.process, err = startHeld(cmd); err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	ctx, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	for {
		if q.Client, err = nbdclient.Dial(ctx, "nbd+unix:///?socket="+socket); err == nil {
			return q, nil
		}
		select {
		case <-q.process.Gone():
			return nil, errors.Join(because(&said, q.process.How()), q.end())
		case <-ctx.Done():
			return nil, errors.Join(fmt.Errorf("qemu-nbd does not serve it: %w", err), q.end())
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// startHeld starts a program from a thread that lives as long: it ends with that thread.
func startHeld(cmd *exec.Cmd) (*process.Process, error) {
	type started struct {
		*process.Process
		err error
	}
	out := make(chan started)
	go func() {
		runtime.LockOSThread()
		p, err := process.Start(cmd)
		out <- started{p, err}
		if err == nil {
			<-p.Gone()
		}
	}()
	s := <-out
	return s.Process, s.err
}

// extent knows of no holes: zeros are found when they are read.
func (q *served) extent(off int64) (bool, int64, error) { return true, q.Size(), nil }

func (q *served) end() error {
	if q.Client != nil {
		_ = q.Disconnect()
	}
	q.process.Stop(context.Background())
	err := os.Remove(filepath.Join(q.dir, socketName))
	if errors.Is(err, os.ErrNotExist) {
		err = nil
	}
	return errors.Join(err, os.Remove(q.dir))
}
