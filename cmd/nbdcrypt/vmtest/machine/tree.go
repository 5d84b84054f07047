package machine

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// tree is a system's files, in the order in which they are made.
type tree struct {
	entries []entry
	have    map[string]bool
}

type entry struct {
	name    string
	mode    uint32
	content []byte // of a link: where it leads
}

const (
	typeDir  = 0o040000
	typeFile = 0o100000
	typeLink = 0o120000
)

func newTree() *tree { return &tree{have: map[string]bool{}} }

// inside is where a path of the host lies in the tree: Debian's /bin, /sbin and /lib are links into /usr, there and here.
func inside(name string) string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	return name
}

func (s *tree) file(name string, mode uint32, content []byte) {
	s.add(inside(name), typeFile|mode, content)
}
func (s *tree) link(name, to string) { s.add(inside(name), typeLink|0o777, []byte(to)) }
func (s *tree) dir(name string)      { s.add(inside(name), typeDir|0o755, nil) }

// add adds one, after the directories above it. What is there already stays.
func (s *tree) add(name string, mode uint32, content []byte) {
	if s.have[name] {
		return
	}
	if above := path.Dir(name); above != "." {
		s.add(above, typeDir|0o755, nil)
	}
	s.have[name] = true
	s.entries = append(s.entries, entry{name, mode, content})
}

// copy adds a file of this machine at the same place, following links.
func (s *tree) copy(path string, mode uint32) error {
	if s.have[inside(path)] {
		return nil
	}
	content, err := os.ReadFile(path)
	if err == nil {
		s.file(path, mode, content)
	}
	return err
}

// archive writes the tree as the kernel wants an initramfs: a cpio archive of the kind "newc". Its length is a multiple of 4, so that another may
// follow. (cavaliergopher/cpio, the library for it, leaves out where links lead.)
func (s *tree) archive(w io.Writer) error {
	to := bufio.NewWriterSize(w, 1<<20)
	for i, e := range append(s.entries, entry{name: "TRAILER!!!"}) {
		header := fmt.Sprintf("070701%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%08x%s\x00",
			i+1, e.mode, 0, 0, 1, 0, len(e.content), 0, 0, 0, 0, len(e.name)+1, 0, e.name)
		for _, part := range []string{header, string(e.content)} {
			to.WriteString(part + strings.Repeat("\x00", -len(part)&3)) // an error stays, and Flush tells it
		}
	}
	return to.Flush()
}

// lay makes the tree below a directory.
func (s *tree) lay(dir string) (err error) {
	for _, e := range s.entries {
		name, mode := filepath.Join(dir, e.name), os.FileMode(e.mode&0o777)
		switch e.mode &^ 0o777 {
		case typeDir:
			err = os.Mkdir(name, mode)
		case typeLink:
			err = os.Symlink(string(e.content), name)
		default:
			err = os.WriteFile(name, e.content, mode)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
