//go:build vm

package vmtest

import (
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// How often tests do what can go wrong. The defaults are the short set's.
var (
	cuts  = flag.Int("cuts", 5, "power cuts")
	kills = flag.Int("kills", 3, "kills of the daemon")
)

//go:embed packages.txt
var packages string

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	os.Setenv("PATH", "/usr/sbin:/usr/bin:/sbin:/bin:"+os.Getenv("PATH"))
	if err := requirements(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	clean, err := machine.Prepare()
	defer clean()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	fmt.Print(table())
	return code
}

// requirements names everything that is missing, not just the first.
func requirements() error {
	var missing []string
	for line := range strings.Lines(packages) {
		words := strings.Fields(line)
		if len(words) == 0 || words[0] == "#" {
			continue
		}
		for _, command := range words[1:] {
			if _, err := exec.LookPath(command); err != nil {
				missing = append(missing, fmt.Sprintf("%s is missing: install the package %s", command, words[0]))
			}
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("%s", strings.Join(missing, "\n"))
	}
	return nil
}
