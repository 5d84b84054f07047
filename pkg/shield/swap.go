package shield

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Swap tells where the kernel could write this process's memory, apart from what is locked.
type Swap struct {
	Kind SwapKind
	// Areas are the devices and files in question.
	Areas []string
}

// SwapKind is the worst of all areas.
type SwapKind string

// The kinds of Swap.
const (
	SwapNone        SwapKind = "none"        // none is on, or in memory only (zram)
	SwapForbidden   SwapKind = "forbidden"   // there is some, and our control group may not use it
	SwapEncrypted   SwapKind = "encrypted"   // all of it
	SwapUnencrypted SwapKind = "unencrypted" // or not known to be encrypted
)

// An area is a line of /proc/swaps.
type area struct{ name, kind string }

func (y system) swap() (Swap, error) {
	text, err := os.ReadFile(y.path("proc/swaps"))
	if errors.Is(err, fs.ErrNotExist) {
		return Swap{Kind: SwapNone, Areas: []string{}}, nil // a kernel without swap
	}
	if err != nil {
		return Swap{}, fmt.Errorf("shield: %w", err)
	}
	areas, err := parseSwaps(string(text))
	if err != nil {
		return Swap{}, err
	}
	return y.judge(areas), nil
}

// judge names the areas of the worst kind. Areas in memory are no disk.
func (y system) judge(areas []area) Swap {
	var clear, encrypted = []string{}, []string{}
	for _, a := range areas {
		onDisk, safe := y.weigh(a)
		switch {
		case onDisk && safe:
			encrypted = append(encrypted, a.name)
		case onDisk:
			clear = append(clear, a.name)
		}
	}
	switch all := append(clear, encrypted...); {
	case len(all) == 0:
		return Swap{SwapNone, all}
	case y.swapForbidden():
		return Swap{SwapForbidden, all}
	case len(clear) > 0:
		return Swap{SwapUnencrypted, clear}
	default:
		return Swap{SwapEncrypted, encrypted}
	}
}

// parseSwaps reads /proc/swaps: a heading, then name, type, size, used and priority of each area, in which the kernel writes
// blanks of the name as octal escapes.
func parseSwaps(text string) (areas []area, err error) {
	_, rows, _ := strings.Cut(text, "\n")
	for row := range strings.Lines(rows) {
		fields := strings.Fields(row)
		if len(fields) != 5 || (fields[1] != "partition" && fields[1] != "file") {
			return nil, fmt.Errorf("shield: /proc/swaps: a line that is not understood: %.100q", row)
		}
		areas = append(areas, area{unescape(fields[0]), fields[1]})
	}
	return areas, nil
}

// unescape undoes the kernel's three octal digits after a backslash.
func unescape(name string) string {
	var b strings.Builder
	for i := 0; i < len(name); i++ {
		if name[i] == '\\' && i+4 <= len(name) {
			if c, err := strconv.ParseUint(name[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		b.WriteByte(name[i])
	}
	return b.String()
}

// weigh tells whether an area is on a disk, and encrypted there.
func (y system) weigh(a area) (onDisk, safe bool) {
	dir, err := y.blockDevice(a.name, a.kind == "file")
	if err != nil {
		return true, false
	}
	backing, err := os.ReadFile(filepath.Join(dir, "backing_dev"))
	if err != nil {
		return true, encrypted(dir, maxStack)
	}
	// Only zram has that: memory, of which it may write a part to a disk.
	disk := strings.TrimSpace(string(backing))
	if disk == "none" {
		return false, true
	}
	dir, err = y.blockDevice(disk, false)
	return true, err == nil && encrypted(dir, maxStack)
}

// blockDevice finds the folder of sysfs of a device, or of the one below a file. The kernel's own name of a device goes before what
// this process sees at its path, which a container may have filled otherwise.
func (y system) blockDevice(path string, isFile bool) (string, error) {
	dir := y.path("sys/class/block", filepath.Base(path))
	if _, err := os.Stat(dir); err == nil && !isFile {
		return dir, nil
	}
	device, err := y.device(path)
	return y.path("sys/dev/block", device), err
}

// maxStack is how many devices may lie on each other. Deeper ones count as unencrypted.
const maxStack = 16

// ciphers begin the uuids of mappings that encrypt; other "CRYPT-" ones, as of dm-verity and dm-integrity, do not.
var ciphers = []string{"CRYPT-LUKS", "CRYPT-PLAIN-", "CRYPT-LOOPAES-", "CRYPT-TCRYPT-", "CRYPT-BITLK-", "CRYPT-FVAULT2-"}

// encrypted looks down from a block device of sysfs: a mapping of dm-crypt says that it is one, any other device is as what it lies on.
func encrypted(device string, depth int) bool {
	dir, err := filepath.EvalSymlinks(device)
	if err != nil || depth == 0 {
		return false
	}
	uuid, _ := os.ReadFile(filepath.Join(dir, "dm/uuid")) // devices of other kinds have none
	if slices.ContainsFunc(ciphers, func(cipher string) bool { return strings.HasPrefix(string(uuid), cipher) }) {
		return true
	}
	if _, err := os.Stat(filepath.Join(dir, "partition")); err == nil {
		return encrypted(filepath.Dir(dir), depth-1)
	}
	below, err := filepath.Glob(filepath.Join(dir, "slaves", "*"))
	return err == nil && len(below) > 0 && !slices.ContainsFunc(below, func(b string) bool { return !encrypted(b, depth-1) })
}

// swapForbidden tells whether our control group, or one above it, may not swap (memory.swap.max, version 2).
func (y system) swapForbidden() bool {
	text, err := os.ReadFile(y.path("proc/self/cgroup"))
	if err != nil {
		return false
	}
	_, rest, found := strings.Cut("\n"+string(text), "\n0::")
	group, _, _ := strings.Cut(rest, "\n")
	if !found || !filepath.IsAbs(group) || strings.Contains(group, "..") { // ".." leads out of what our namespace shows
		return false
	}
	for ; ; group = filepath.Dir(group) {
		limit, err := os.ReadFile(y.path("sys/fs/cgroup", group, "memory.swap.max"))
		if err == nil && strings.TrimSpace(string(limit)) == "0" {
			return true
		}
		if group == "/" {
			return false
		}
	}
}

// deviceOf names a block device, or the one that a file lies on, as sysfs does.
func deviceOf(path string) (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return "", err
	}
	device := st.Dev
	if st.Mode&unix.S_IFMT == unix.S_IFBLK {
		device = st.Rdev
	}
	return fmt.Sprintf("%d:%d", unix.Major(device), unix.Minor(device)), nil
}
