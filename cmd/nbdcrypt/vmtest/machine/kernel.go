package machine

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// modules are what the guest loads as it comes up, by name, with what they depend on.
var modules = []string{"virtio_pci", "virtio_blk", "virtio_console", "nbd", "dm_crypt", "dm_flakey", "dm_log_writes", "dm_delay", "xfs", "loop",
	"fuse", "tls", "xts", "aesni_intel", "vsock_loopback"}

// kernel is Debian's for virtual machines of clouds: it has what those need, and boots fast.
type kernel struct {
	version string
	image   string // the file that is booted
	modules string // the directory of its modules
	depends map[string][]string
	paths   map[string]string // of modules, below their directory, by name
}

// findKernel takes the one that is installed, or gets it.
func findKernel() (*kernel, error) {
	k, err := kernelIn("/")
	if k != nil || err != nil {
		return k, err
	}
	dir, err := fetchKernel()
	if err != nil {
		return nil, err
	}
	if k, err = kernelIn(dir); k == nil {
		return nil, errors.Join(err, fmt.Errorf("there is no kernel in %s: remove that directory", dir))
	}
	return k, err
}

// Kernel is the file of the kernel that machines boot, for tests that boot it without them.
func Kernel() (path string, err error) {
	k, err := findKernel()
	if err != nil {
		return "", err
	}
	return k.image, nil
}

// kernelIn finds the newest kernel below a directory, nil where there is none.
func kernelIn(root string) (*kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot/vmlinuz-*-cloud-amd64"))
	if err != nil || len(images) == 0 {
		return nil, err
	}
	newest := slices.MaxFunc(images, newer)
	version := strings.TrimPrefix(filepath.Base(newest), "vmlinuz-")
	k := &kernel{version: version, image: newest, modules: filepath.Join(root, "lib/modules", version), depends: map[string][]string{}, paths: map[string]string{}}
	list, err := os.ReadFile(k.modules + "/modules.dep")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(list)) {
		path, needs, _ := strings.Cut(strings.TrimSpace(line), ":")
		name := moduleName(path)
		k.paths[name] = path
		for _, need := range strings.Fields(needs) {
			k.depends[name] = append(k.depends[name], moduleName(need))
		}
	}
	return k, nil
}

// newer compares files by the time at which they came.
func newer(a, b string) int {
	infoA, errA := os.Stat(a)
	infoB, errB := os.Stat(b)
	if errA != nil || errB != nil {
		return strings.Compare(a, b)
	}
	return infoA.ModTime().Compare(infoB.ModTime())
}

func moduleName(path string) string {
	return strings.ReplaceAll(strings.TrimSuffix(filepath.Base(path), ".ko"), "-", "_")
}

// ordered lists the paths of modules so that each comes after what it depends on. What is built in is not listed.
func (k *kernel) ordered(names []string) (paths []string, err error) {
	done := map[string]bool{}
	var visit func(name string) error
	visit = func(name string) error {
		if done[name] {
			return nil
		}
		done[name] = true
		path, ok := k.paths[name]
		if !ok {
			return fmt.Errorf("%s has no module %s", k.modules, name)
		}
		for _, need := range k.depends[name] {
			if err := visit(need); err != nil {
				return err
			}
		}
		paths = append(paths, path)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, err
		}
	}
	return paths, nil
}
