package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// module is a small one, with a test of every fate.
func module(t *testing.T, tests string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod":          "module small\n\ngo 1.26\n",
		"good/a_test.go":  "package good\n\nimport (\"fmt\"; \"testing\")\n\nfunc TestGood(t *testing.T) { fmt.Println(\"from good\"); t.Log(\"a log of good\") }\n",
		"none/none.go":    "package none\n",
		"other/a_test.go": "package other\n\nimport \"testing\"\n\n" + tests,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// through runs go test in a module and hands its events on.
func through(t *testing.T, dir string, p *printer, whole bool) (shown, file string, err error) {
	t.Helper()
	cmd := exec.Command("go", "test", "-json", "./...")
	cmd.Dir = dir
	events, _ := cmd.Output() // that tests fail is what the events tell
	if len(events) == 0 {
		t.Fatal("go test says nothing")
	}
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "deep", "stage.json")
	err = run(bytes.NewReader(events), &out, path, p, whole)
	kept, readErr := os.ReadFile(path)
	if readErr != nil || !bytes.Equal(kept, events) {
		t.Errorf("the file has %d bytes of %d: %v", len(kept), len(events), readErr)
	}
	return out.String(), path, err
}

// holds wants some texts in another, and others not.
func holds(t *testing.T, text string, want, not []string) {
	t.Helper()
	for _, part := range want {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in\n%s", part, text)
		}
	}
	for _, part := range not {
		if strings.Contains(text, part) {
			t.Errorf("%q is in\n%s", part, text)
		}
	}
}

const skips = "func TestSkipped(t *testing.T) { t.Run(\"part\", func(t *testing.T) { t.Skip(\"no reason\") }) }\n"

func TestWhatGoesWell(t *testing.T) {
	t.Parallel()
	dir := module(t, skips)
	shown, _, err := through(t, dir, newPrinter(false), false)
	if err != nil {
		t.Error(err)
	}
	holds(t, shown, []string{"ok  \tsmall/good\t", "?   \tsmall/none\t[no test files]\n", "ok  \tsmall/other\t"}, []string{"from good", "---", "===", "no reason", "PASS"})
	shown, _, err = through(t, dir, newPrinter(true), true)
	if err == nil || !strings.Contains(err.Error(), "TestSkipped/part") {
		t.Error("a skipped test is no failure:", err)
	}
	holds(t, shown, []string{"from good\n", "a log of good", "--- PASS: TestGood", "--- SKIP: TestSkipped/part", "ok  \tsmall/good\t"}, []string{"==="})
}

func TestWhatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		tests string
		want  []string
	}{
		"a part":    {"func TestBad(t *testing.T) { t.Run(\"part\", func(t *testing.T) { t.Error(\"so it ends\") }) }\n", []string{"--- FAIL: TestBad/part", "so it ends", "FAIL\tsmall/other\t"}},
		"a panic":   {"func TestBad(t *testing.T) { panic(\"so it ends\") }\n", []string{"panic: so it ends", "FAIL\tsmall/other\t"}},
		"an exit":   {"func TestMain(m *testing.M) { println(\"so it ends\"); panic(1) }\n", []string{"so it ends", "FAIL\tsmall/other\t"}},
		"the build": {"func TestBad(t *testing.T) { soItEnds() }\n", []string{"undefined: soItEnds", "FAIL\tsmall/other [build failed]"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := module(t, c.tests+"\nfunc TestFine(t *testing.T) { t.Log(\"nobody asks\") }\n")
			shown, _, err := through(t, dir, newPrinter(false), false)
			if err == nil {
				t.Error("that is no failure")
			}
			holds(t, shown, append(c.want, "ok  \tsmall/good\t"), []string{"nobody asks", "from good", "==="})
			shown, _, err = through(t, dir, newPrinter(true), false)
			if err == nil {
				t.Error("with -v that is no failure")
			}
			holds(t, shown, append(c.want, "from good"), []string{"==="})
		})
	}
}

// What is no event, such as the words of a program that go test runs, is printed, and not kept.
func TestOtherLines(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	path := filepath.Join(t.TempDir(), "stage.json")
	in := "hello\n{\"Action\":\"start\",\"Package\":\"p\"}\n{\"broken\n{}\nthe end"
	if err := run(strings.NewReader(in), &out, path, newPrinter(false), true); err != nil {
		t.Error(err)
	}
	kept, err := os.ReadFile(path)
	if err != nil || string(kept) != "{\"Action\":\"start\",\"Package\":\"p\"}\n" || out.String() != "hello\n{\"broken\n{}\nthe end" {
		t.Errorf("%v: %q is kept, %q printed", err, kept, out.String())
	}
}
