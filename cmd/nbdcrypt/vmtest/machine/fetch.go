package machine

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// meta is the package that depends on the newest kernel. Installing that would put it into the boot menu of whoever runs a test.
const meta = "linux-image-cloud-amd64"

// fetchKernel gets the package of a kernel and unpacks it into the user's cache, where later runs find it.
func fetchKernel() (dir string, err error) {
	depends, err := output("", "apt-cache", "depends", meta)
	if err != nil {
		return "", err
	}
	name := regexp.MustCompile(`linux-image-[0-9][^ \n]*`).FindString(depends)
	if name == "" {
		return "", fmt.Errorf("apt-cache knows no kernel that %s depends on: run apt-get update", meta)
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir = filepath.Join(cache, "nbdcrypt", name)
	if _, err := os.Stat(dir); err == nil {
		return dir, nil
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return "", err
	}
	// All or nothing gets its name, also where two tests run at once.
	unpacked, err := os.MkdirTemp(filepath.Dir(dir), "fetching-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(unpacked)
	if err := unpackKernel(name, unpacked); err != nil {
		return "", err
	}
	if err := os.Rename(unpacked, dir); err != nil && !os.IsExist(err) {
		return "", err
	}
	return dir, nil
}

func unpackKernel(name, dir string) error {
	if _, err := output(dir, "apt-get", "download", name); err != nil {
		return fmt.Errorf("%w\nthe list of packages may be old: run apt-get update", err)
	}
	packages, err := filepath.Glob(dir + "/*.deb")
	if err != nil || len(packages) != 1 {
		return fmt.Errorf("apt-get download left %q", packages)
	}
	if _, err := output(dir, "dpkg-deb", "-x", packages[0], dir); err != nil {
		return err
	}
	// The package's installation would do that.
	if _, err := output(dir, "depmod", "-b", dir, strings.TrimPrefix(name, "linux-image-")); err != nil {
		return err
	}
	return os.Remove(packages[0])
}

// output runs a program in a directory and returns what it says.
func output(dir, name string, args ...string) (string, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("%s %q: %w\n%s", name, args, err, out)
	}
	return string(out), err
}
