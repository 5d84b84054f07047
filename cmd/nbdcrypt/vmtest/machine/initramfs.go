package machine

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
)

// prepared is what all machines of a test binary share.
var prepared struct {
	dir       string // sockets and consoles; gone at the end
	kernel    *kernel
	initramfs string
}

// File is one more file in the guest.
type File struct {
	Path    string
	Mode    uint32
	Content []byte
}

// Prepare builds what machines boot. TestMain calls it once, and the function that it returns at the end.
func Prepare() (clean func(), err error) {
	clean = func() { os.RemoveAll(prepared.dir) }
	if runtime.GOARCH != "amd64" {
		return clean, errors.New("the virtual machines are x86-64 ones, for machines of that kind")
	}
	if prepared.dir, err = os.MkdirTemp("", "nbdcrypt-vm-"); err != nil {
		return clean, err
	}
	if prepared.kernel, err = findKernel(); err != nil {
		return clean, err
	}
	for _, program := range []string{"nbdcrypt", "nbdcrypt/vmtest/guest"} {
		cmd := exec.Command("go", "build", "-trimpath", "-o", prepared.dir+"/"+filepath.Base(program), "nbdcrypt/cmd/"+program)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return clean, fmt.Errorf("go build %s: %w\n%s", program, err, out)
		}
	}
	prepared.initramfs = prepared.dir + "/initramfs"
	return clean, writeInitramfs(prepared.initramfs)
}

func writeInitramfs(path string) error {
	s := newTree()
	s.addSystem()
	if err := errors.Join(s.addOurs(), s.addTools(), s.addModules(prepared.kernel, modules)); err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(s.archive(f), f.Close())
}

// addUsr adds Debian's links into /usr.
func (s *tree) addUsr() {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		s.dir("usr/" + dir)
		s.add(dir, typeLink|0o777, []byte("usr/"+dir))
	}
}

// addSystem adds what every system has.
func (s *tree) addSystem() {
	s.addUsr()
	for _, dir := range []string{"proc", "sys", "dev", "run", "tmp", "mnt", "root", "var/lib", "etc"} {
		s.dir(dir)
	}
	s.link("/var/run", "/run")
	s.link("/etc/mtab", "/proc/self/mounts")
	for name, content := range map[string]string{
		"passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/sh\n", "group": "root:x:0:\nnogroup:x:65534:\n",
		"hosts": "127.0.0.1 localhost\n", "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files\n", "hostname": "guest\n",
	} {
		s.file("/etc/"+name, 0o644, []byte(content))
	}
}

// addOurs adds the program under test, as it is shipped, and the guest's own.
func (s *tree) addOurs() error {
	program, err := os.ReadFile(Program())
	if err != nil {
		return err
	}
	s.file("/bin/nbdcrypt", 0o755, program)
	return errors.Join(s.addGuest(), s.copy("/etc/mke2fs.conf", 0o644))
}

// addGuest adds the guest's program, as init and as a command.
func (s *tree) addGuest() error {
	guest, err := os.ReadFile(prepared.dir + "/guest")
	if err != nil {
		return err
	}
	s.file("/init", 0o755, guest)
	s.link("/bin/guest", "/init")
	return nil
}

// Program is the program under test, for tests that run it on this side too.
func Program() string { return prepared.dir + "/nbdcrypt" }

// addModules adds modules, what loads more of them by name, and the list of those that are loaded at once.
func (s *tree) addModules(k *kernel, names []string) error {
	paths, err := k.ordered(names)
	if err != nil {
		return err
	}
	var list, depends strings.Builder
	dir := "/lib/modules/" + k.version + "/"
	for _, path := range paths {
		content, err := os.ReadFile(k.modules + "/" + path)
		if err != nil {
			return err
		}
		s.file(dir+path, 0o644, content)
		fmt.Fprintln(&list, dir+path)
		var needs []string
		for _, need := range k.depends[moduleName(path)] {
			needs = append(needs, k.paths[need])
		}
		fmt.Fprintln(&depends, path+": "+strings.Join(needs, " "))
	}
	s.file("/etc/modules", 0o644, []byte(list.String()))
	s.file(dir+"modules.dep", 0o644, []byte(depends.String()))
	return nil
}
