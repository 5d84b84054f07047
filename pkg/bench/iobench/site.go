package iobench

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/refusal"
)

// The names of the sites.
const (
	inMemory = "memory"
	onDisk   = "disk"
)

// site is a place that disks lie in while they are measured.
type site struct {
	Name       string `json:"name"` // memory or disk
	FileSystem string `json:"file_system"`
	Dir        string `json:"dir"` // what was asked for: nothing is left in it
	dir        string // a new one in Dir
	run        string // for sockets
	file       *os.File
	made       int
}

// findSites are the places to measure: memory, where there is some, and a file system.
func findSites(dir, run string) (sites []*site, missing []Missing, err error) {
	if kind, err := fileSystem("/dev/shm"); err == nil && kind == tmpfs {
		sites = append(sites, &site{Name: inMemory, FileSystem: kind, Dir: "/dev/shm", run: run})
	} else {
		missing = append(missing, Missing{What: inMemory, Tool: "a tmpfs at /dev/shm"})
	}
	at, err := realSite(dir, run)
	if err != nil {
		return nil, nil, err
	}
	return append(sites, at), missing, nil
}

// realSite is the one on a file system: in dir, or in a temporary directory.
func realSite(dir, run string) (*site, error) {
	if dir == "" {
		dir = notMemory(os.TempDir(), "/var/tmp")
	}
	kind, err := fileSystem(dir)
	if err != nil {
		return nil, refusal.New(refusal.NotFound, "name a directory that is there with --dir", "--dir %s: %w", dir, err)
	}
	return &site{Name: onDisk, FileSystem: kind, Dir: dir, run: run}, nil
}

// notMemory is the first directory that lies on a file system with a disk under it, or else the first.
func notMemory(dirs ...string) string {
	for _, dir := range dirs {
		if kind, err := fileSystem(dir); err == nil && kind != tmpfs {
			return dir
		}
	}
	return dirs[0]
}

// begin makes a directory for everything that is made here.
func (at *site) begin(need int64) error {
	if err := at.room(need); err != nil {
		return err
	}
	var err error
	if at.dir, err = os.MkdirTemp(at.Dir, fmt.Sprintf("nbdcrypt-bench-%d-", os.Getpid())); err != nil {
		return refusal.New(refusal.Failed, "name another directory with --dir", "making a directory: %w", err)
	}
	at.file, err = os.Open(at.dir)
	return err
}

func (at *site) end() error {
	if at.file != nil {
		_ = at.file.Close() // it was only read
	}
	if at.dir == "" {
		return nil
	}
	return os.RemoveAll(at.dir)
}

// room tells whether there is enough of it. What is on a tmpfs is memory that has to be there too.
func (at *site) room(need int64) error {
	var fs unix.Statfs_t
	if err := unix.Statfs(at.Dir, &fs); err != nil {
		return fmt.Errorf("%s: %w", at.Dir, err)
	}
	free := int64(fs.Bavail) * fs.Bsize
	if at.FileSystem == tmpfs {
		free = min(free, memory().Available)
	}
	if free < need {
		return refusal.New(refusal.Failed, "take a smaller --size, fewer --peers, or another --dir", "%s has %d MiB free, and it takes %d MiB", at.Dir, free>>20, need>>20)
	}
	return nil
}

// settle writes out what earlier loads left in the cache, so that nobody pays for his predecessor's writes.
func (at *site) settle() error { return unix.Syncfs(int(at.file.Fd())) }

// name is a path here that was not used before.
func (at *site) name(what string) string {
	at.made++
	return filepath.Join(at.dir, fmt.Sprintf("%s-%d", what, at.made))
}

// socket is a path for a socket that was not used before.
func (at *site) socket() string {
	at.made++
	return filepath.Join(at.run, fmt.Sprintf("%s-%d.sock", at.Name, at.made))
}

const tmpfs = "tmpfs"

// fileSystem names the file system of a directory by its type in the mount table, or by its number in the kernel where the mount is
// not in the table: that of a chroot's root is not seen inside of it.
func fileSystem(dir string) (string, error) {
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return "", err
	}
	if real, err = filepath.Abs(real); err != nil {
		return "", err
	}
	table, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return "", err
	}
	if kind := mountedAt(string(table), real); kind != "" {
		return kind, nil
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(real, &fs); err != nil {
		return "", err
	}
	return fmt.Sprintf("file system %#x", fs.Type), nil
}

// mountedAt looks for the mount with the longest path that dir is under, of those the last.
func mountedAt(table, dir string) (kind string) {
	longest := 0
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 3 {
			continue
		}
		at := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(fields[1])
		if (dir == at || strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/")) && len(at) >= longest {
			longest, kind = len(at), fields[2]
		}
	}
	return kind
}
