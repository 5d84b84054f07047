package xts

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

var (
	assembly       = `^nbdcrypt/(xts\.(en|de)cryptARM64|pkg/aes256\.(expandKey|invertKey|xorKeystream))(\.abi0)?$`
	vectorRegister = regexp.MustCompile(`\b[VF]([0-9]+)\b`)
	clearing       = regexp.MustCompile(`\bVMOVI \$0, V([0-9]+)\.B16`)
)

// TestRegistersAreCleared reads the machine code, as macros hide who uses what: before each return, zeros go to every vector register
// that the function names.
func TestRegistersAreCleared(t *testing.T) {
	program := filepath.Join(t.TempDir(), "program")
	goSays(t, "test", "-c", "-o", program, ".")
	functions := strings.Split(goSays(t, "tool", "objdump", "-s", assembly, program), "TEXT ")[1:]
	if len(functions) != 5 {
		t.Fatalf("%d functions are in assembly, not 5", len(functions))
	}
	for _, function := range functions {
		name, code, _ := strings.Cut(function, "\n")
		lines, returns := strings.Split(code, "\n"), 0
		for i, line := range lines {
			if !strings.HasSuffix(strings.TrimSpace(line), "RET") {
				continue
			}
			returns++
			cleared := clearedLast(lines[:i])
			for _, m := range vectorRegister.FindAllStringSubmatch(code, -1) {
				if !slices.Contains(cleared, m[1]) {
					t.Fatalf("%s returns with something in V%s", name, m[1])
				}
			}
		}
		if returns == 0 {
			t.Errorf("%s returns nowhere", name)
		}
	}
}

// clearedLast are the numbers of the vector registers that the last lines clear.
func clearedLast(lines []string) (numbers []string) {
	for _, line := range slices.Backward(lines) {
		m := clearing.FindStringSubmatch(line)
		if m == nil {
			break
		}
		numbers = append(numbers, m[1])
	}
	return numbers
}

// goSays runs the go command and returns what it says.
func goSays(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("go", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", args[0], err, out)
	}
	return string(out)
}
