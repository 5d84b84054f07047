package main

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// pkg is what `go list` tells of a package.
type pkg struct {
	ImportPath string
	Doc        string
	Imports    []string
	Module     *struct{ Path string }
}

func listPackages(t *testing.T, args ...string) (list []pkg) {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Doc,Imports,Module"}, args...)...)
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		list = append(list, p)
	}
	if len(list) < 20 {
		t.Fatalf("only %d packages", len(list))
	}
	return list
}

// shortNames are what ARCHITECTURE.md calls the modules that it explains.
var shortNames = map[string]string{
	"github.com/pojntfx/go-nbd": "go-nbd", "github.com/dgraph-io/badger/v4": "badger", "github.com/dgraph-io/ristretto/v2": "ristretto",
	"github.com/spf13/cobra": "cobra", "golang.org/x/sys": "x/sys", "golang.org/x/crypto": "x/crypto", "golang.org/x/term": "x/term", "github.com/google/uuid": "uuid",
	"github.com/docker/go-units": "go-units", "github.com/schollz/progressbar/v3": "progressbar", "github.com/coreos/go-systemd/v22": "go-systemd",
	"github.com/prometheus/client_golang": "client_golang", "github.com/google/go-tpm": "go-tpm", "github.com/moby/sys/mountinfo": "mountinfo", "github.com/lima-vm/go-qcow2reader": "go-qcow2reader",
	"github.com/hanwen/go-fuse/v2": "go-fuse", "github.com/mdlayher/genetlink": "genetlink", "github.com/mdlayher/netlink": "netlink",
	"libvirt.org/go/libvirtxml": "libvirtxml",
}

// shortName is how the table names an import: a room's path, or a module's short name.
func shortName(t *testing.T, importPath string) string {
	if room, ok := strings.CutPrefix(importPath, "nbdcrypt/"); ok {
		return room
	}
	for module, short := range shortNames {
		if importPath == module || strings.HasPrefix(importPath, module+"/") {
			return short
		}
	}
	t.Errorf("%s has no place in ARCHITECTURE.md's table of imports", importPath)
	return importPath
}

// The table of rooms in ARCHITECTURE.md says what each room imports, exactly.
func TestImportTable(t *testing.T) {
	text, err := os.ReadFile("../../ARCHITECTURE.md")
	if err != nil {
		t.Fatal(err)
	}
	table := map[string][]string{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([a-z0-9/-]+)` \\| .* \\| (.*) \\|$").FindAllStringSubmatch(string(text), -1) {
		imports := strings.Fields(strings.NewReplacer("`", "", "—", "").Replace(row[2]))
		slices.Sort(imports)
		table[row[1]] = imports
	}
	for _, p := range listPackages(t, "./...") {
		room := strings.TrimPrefix(p.ImportPath, "nbdcrypt/")
		var imports []string
		for _, i := range p.Imports {
			if strings.Contains(i, ".") || strings.HasPrefix(i, "nbdcrypt/") {
				imports = append(imports, shortName(t, i))
			}
		}
		slices.Sort(imports)
		imports = slices.Compact(imports)
		if want, ok := table[room]; !ok || !slices.Equal(imports, want) {
			t.Errorf("%s imports %v, ARCHITECTURE.md says %v", room, imports, want)
		}
		delete(table, room)
	}
	for room := range table {
		t.Errorf("ARCHITECTURE.md has a room %s that is not there", room)
	}
}

// The packages that hold keys or meet the wire stay free of what they have no business with.
func TestDepsStaySmall(t *testing.T) {
	for room, forbidden := range map[string][]string{
		"nbdcrypt/xts":        {"net", "os/exec", "nbdcrypt/pkg/catalog"},
		"nbdcrypt/nbd":        {"nbdcrypt/keystore", "nbdcrypt/pkg/secret", "nbdcrypt/pkg/catalog"},
		"nbdcrypt/keystore":   {"nbdcrypt/nbd", "nbdcrypt/pkg/volume"},
		"nbdcrypt/pkg/cli":    {"nbdcrypt/keystore", "nbdcrypt/pkg/daemon", "github.com/dgraph-io/badger/v4"},
		"nbdcrypt/pkg/volume": {"nbdcrypt/nbd", "nbdcrypt/pkg/control"},
	} {
		for _, p := range listPackages(t, "-deps", "./"+strings.TrimPrefix(room, "nbdcrypt/")) {
			if slices.Contains(forbidden, p.ImportPath) {
				t.Errorf("%s depends on %s", room, p.ImportPath)
			}
		}
	}
}

// There is no debug endpoint: nothing that would offer profiles, traces or variables of the process is compiled in, but for
// expvar, which Badger publishes its counters with, and client_golang could read; nobody else may join.
func TestNoDebugEndpoint(t *testing.T) {
	for _, p := range listPackages(t, "-deps", "./cmd/nbdcrypt") {
		if slices.Contains([]string{"net/http/pprof", "runtime/pprof", "runtime/trace", "golang.org/x/net/trace"}, p.ImportPath) {
			t.Errorf("the program depends on %s", p.ImportPath)
		}
		if slices.Contains(p.Imports, "expvar") && !slices.Contains([]string{"github.com/dgraph-io/badger/v4", "github.com/dgraph-io/badger/v4/y",
			"github.com/prometheus/client_golang/prometheus"}, p.ImportPath) {
			t.Errorf("%s imports expvar", p.ImportPath)
		}
	}
}

// Every package says what it is for, once; nothing is replaced; the top of the tree is as agreed.
func TestShapeOfTheTree(t *testing.T) {
	for _, p := range listPackages(t, "./...") {
		if len(p.Doc) < 20 {
			t.Errorf("%s has no package comment", p.ImportPath)
		}
	}
	mod, err := os.ReadFile("../../go.mod")
	if err != nil || strings.Contains(string(mod), "replace") {
		t.Errorf("go.mod: %v, or it replaces a module", err)
	}
	want := []string{"ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "Makefile", "README.md", "SECURITY.md", "cmd",
		"docs", "go.mod", "go.sum", "keystore", "nbd", "pkg", "testdata", "xts"}
	entries, err := os.ReadDir("../..")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), ".") && e.Name() != "bin" {
			got = append(got, e.Name())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the top of the tree is %v, want %v", got, want)
	}
}
