//go:build amd64 && !race

package xts

import (
	"bytes"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// generated are the files that _asm writes, seen from the top of the tree, by the name of their kernels.
var generated = map[string]string{
	"aes256": "pkg/aes256/aes256_amd64.s",
	"aesni":  "xts/xts_aesni_amd64.s",
	"avx2":   "xts/xts_avx2_amd64.s",
	"avx512": "xts/xts_avx512_amd64.s",
	"clear":  "pkg/secret/clear_amd64.s",
	"cpuid":  "xts/cpuid_amd64.s",
	"rounds": "pkg/bench/rounds_amd64.s",
}

// TestAssemblyIsGenerated writes all assembly for amd64 once more and wants what is committed; and no kernels without a file, no file
// without kernels.
func TestAssemblyIsGenerated(t *testing.T) {
	if _, err := os.ReadDir("_asm"); err != nil { // which tells go test when a result that it has kept is out of date
		t.Fatal(err)
	}
	names := strings.Fields(goIn(t, "_asm", "run", "."))
	if want := slices.Sorted(maps.Keys(generated)); !slices.Equal(names, want) {
		t.Errorf("_asm has the kernels %q, this test's table %q", names, want)
	}
	files := strings.Fields(goIn(t, "..", "list", "-f", `{{$p := .ImportPath}}{{range .SFiles}}{{$p}}/{{.}} {{end}}`, "./..."))
	for i := range files {
		files[i] = strings.TrimPrefix(files[i], "nbdcrypt/")
	}
	slices.Sort(files)
	if want := slices.Sorted(maps.Values(generated)); !slices.Equal(files, want) {
		t.Errorf("the tree has the assembly %q, this test's table %q", files, want)
	}
	for name, file := range generated {
		out := filepath.Join(t.TempDir(), "out.s")
		goIn(t, "_asm", "run", ".", "-kernel", name, "-out", out)
		want, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		target, _ := filepath.Rel("/xts/_asm", "/"+file)
		want = bytes.Replace(want, []byte(" -out "+out), []byte(" -out "+target), 1) // in the first line
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what its generator writes: in xts/_asm, go run . -kernel %s -out %s", file, name, target)
		}
	}
}

var (
	vectorRegister = regexp.MustCompile(`\b[XYZ][0-9]+\b`)
	clearing       = regexp.MustCompile(`^\s*(?:PXOR|VPXOR[DQ]?)\s+([XYZ][0-9]+), ([XYZ][0-9]+)(?:, ([XYZ][0-9]+))?$`)
)

// TestRegistersAreCleared wants each kernel to return with zeros in every vector register that it names: after a call, whatever saves
// registers, saves nothing secret. Package bench's have no secrets.
func TestRegistersAreCleared(t *testing.T) {
	for name, file := range generated {
		if name == "rounds" {
			continue
		}
		text, err := os.ReadFile(filepath.Join("..", file))
		if err != nil {
			t.Fatal(err)
		}
		for _, kernel := range strings.Split(string(text), "\nTEXT ")[1:] {
			symbol, _, _ := strings.Cut(kernel, "(")
			used := vectorRegister.FindAllString(kernel, -1)
			for _, part := range strings.SplitAfter(kernel, "\tRET\n") {
				before, returns := strings.CutSuffix(part, "\tRET\n")
				if left := missing(used, cleared(before)); returns && len(left) > 0 {
					t.Errorf("%s: %s returns with something in vector registers %v", file, symbol, left)
				}
			}
		}
	}
}

// cleared are the numbers of the vector registers that the last lines of text clear. PXOR leaves all of a register but 128 bits as
// they are.
func cleared(text string) (numbers []string) {
	lines, wide := strings.Split(strings.TrimSpace(text), "\n"), regexp.MustCompile(`\b[YZ][0-9]`).MatchString(text)
	for _, line := range slices.Backward(lines) {
		m := clearing.FindStringSubmatch(line)
		switch {
		case m != nil && m[1] == m[2] && (m[3] == m[1] || m[3] == "" && !wide):
			numbers = append(numbers, m[1][1:])
		case strings.TrimSpace(line) != "VZEROUPPER":
			return numbers
		}
	}
	return numbers
}

// missing are the numbers of registers that are not among numbers.
func missing(registers, numbers []string) (left []string) {
	for _, r := range registers {
		if !slices.Contains(numbers, r[1:]) && !slices.Contains(left, r[1:]) {
			left = append(left, r[1:])
		}
	}
	return left
}

// goIn runs the go command in dir and returns what it says.
func goIn(t *testing.T, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Dir, cmd.Stderr = dir, t.Output()
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v", strings.Join(args, " "), err)
	}
	return string(out)
}
