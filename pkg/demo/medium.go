package demo

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// medium puts letters on an attached disk and gets them back, as a user of the disk would.
type medium interface {
	// name says how, and why so.
	name() string
	// put writes the letters to an empty disk and makes them durable.
	put(ctx context.Context, t *tour, uri string, letters []letter) error
	// get reads them back, each text into a new letter.
	get(ctx context.Context, t *tour, uri string, letters []letter) ([]letter, error)
}

// needs are the tools that a file system takes, with the Debian packages that have them.
func needs() [][2]string {
	return [][2]string{{"nbdfuse", "libnbd-bin"}, {"mkfs.ext4", "e2fsprogs"}, {"mount", "mount"}, {"umount", "mount"}, {"losetup", "mount"}}
}

// chooseMedium takes a real file system where that is possible.
func chooseMedium() medium {
	lacking := append(lackingTools(), lackingRights()...)
	if len(lacking) == 0 && !freeLoop() {
		lacking = []string{"there is no free loop device"}
	}
	if len(lacking) == 0 {
		return fileSystem{}
	}
	return rawNBD{why: strings.Join(lacking, "; ")}
}

func lackingTools() []string {
	var tools, packages []string
	for _, need := range needs() {
		if _, err := exec.LookPath(need[0]); err != nil {
			tools = append(tools, need[0])
			if n := len(packages); n == 0 || packages[n-1] != need[1] {
				packages = append(packages, need[1])
			}
		}
	}
	if len(tools) == 0 {
		return nil
	}
	return []string{lackingText(tools, packages)}
}

// lackingRights tells what mounting would fail for. Opening the devices is the test: in a container they may be there
// and yet be of no use.
func lackingRights() []string {
	if os.Geteuid() != 0 {
		return []string{"only root can mount"}
	}
	if !mayMount() {
		return []string{"this process has no right to mount (CAP_SYS_ADMIN), as in most containers"}
	}
	for _, device := range []string{"/dev/fuse", "/dev/loop-control"} {
		fd, err := syscall.Open(device, syscall.O_RDWR|syscall.O_CLOEXEC, 0)
		if err != nil {
			return []string{fmt.Sprintf("%s can't be opened: %v", device, err)}
		}
		syscall.Close(fd)
	}
	return nil
}

// mayMount looks for CAP_SYS_ADMIN, bit 21 of the effective set (capabilities(7)).
func mayMount() bool {
	const sysAdmin = 1 << 21
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(status), "\nCapEff:")
	line, _, _ := strings.Cut(after, "\n")
	set, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && set&sysAdmin != 0
}

// freeLoop tells whether there is a loop device to be had: in a container the kernel may offer one that /dev lacks.
func freeLoop() bool {
	name, err := exec.Command("losetup", "-f").Output()
	if err != nil {
		return false
	}
	_, err = os.Stat(strings.TrimSpace(string(name)))
	return err == nil
}
