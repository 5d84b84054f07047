package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/kit"
)

// linesOf are the lines of one share of a kit, as they are typed.
func linesOf(shares []byte, number int) string {
	var b strings.Builder
	for n := 1; n <= kit.Lines; n++ {
		line := make([]byte, kit.LineSize)
		kit.WriteLine(line, shares[(number-1)*kit.ShareSize:][:kit.ShareSize], n)
		fmt.Fprintf(&b, "%s\n", line)
	}
	return b.String()
}

func mustRun(t *testing.T, run string, args ...string) answer {
	t.Helper()
	got := try(t, run, "", args...)
	if got.code != 0 {
		t.Fatalf("%q: %+v", args, got)
	}
	return got
}

// TestRecoveryKitIsPrinted: a sheet says what it is of, has its lines, and tells what to do; it reads back, from paper and from files.
func TestRecoveryKitIsPrinted(t *testing.T) {
	f := serveFake(t)
	got := mustRun(t, f.run, "root", "recovery", "create")
	for _, says := range []string{"store  5709e000-", "slot   00000001-", "    line 1   040g 0000 040g 21r7  32m5\n", "    line 4   ", "nbdcrypt root recovery open", "the four lines of this sheet"} {
		if !strings.Contains(got.out, says) {
			t.Errorf("the sheet does not say %q:\n%s", says, got.out)
		}
	}
	memory := make([]byte, kit.MaxShares*kit.ShareSize)
	if n, err := kit.ReadSheets(memory, []byte(got.out), 1); n != 1 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	got = mustRun(t, f.run, "root", "recovery", "create", "--shares", "3", "--threshold", "2", "--name", "board")
	if n, err := kit.ReadSheets(memory, []byte(got.out), 1); n != 3 || err != nil || !strings.Contains(got.out, "share  2 of 3; any 2 of them open the store") {
		t.Errorf("%d, %v:\n%s", n, err, got.out)
	}
	var made control.RecoveryKit
	if err := json.Unmarshal([]byte(mustRun(t, f.run, "--json", "root", "recovery", "create").out), &made); err != nil || len(made.Sheets) != 1 || len(made.Sheets[0].Lines) != kit.Lines {
		t.Errorf("%+v, %v", made, err)
	}
	for _, line := range []string{"--shares 3", "--threshold 2", "--shares 1 --threshold 2", "--shares 17 --threshold 2", "--shares 3 --threshold 1"} {
		if got := try(t, f.run, "", append(strings.Fields("root recovery create"), strings.Fields(line)...)...); got.code != 2 {
			t.Errorf("%s: %+v", line, got)
		}
	}
}

// TestRecoveryKitIntoFiles: each sheet gets a new file that only its owner reads, stdout has no line of them, and where there is no
// place for them nothing is asked for.
func TestRecoveryKitIntoFiles(t *testing.T) {
	f := serveFake(t)
	out := filepath.Join(t.TempDir(), "kit")
	got := mustRun(t, f.run, "root", "recovery", "create", "--shares", "3", "--threshold", "2", "--out", out)
	if strings.Contains(got.out, "line 1") {
		t.Errorf("%+v", got)
	}
	for n := 1; n <= 3; n++ {
		path := fmt.Sprintf("%s-%d", out, n)
		if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%v, %v", st, err)
		}
	}
	mustRun(t, f.run, "root", "recovery", "open", "--kit", out+"-1", "--kit", out+"-3")
	shares := fakeKit(3, 2, 1)
	if want := string(shares[:kit.ShareSize]) + string(shares[2*kit.ShareSize:]); f.given[len(f.given)-1] != want {
		t.Errorf("given are %x", f.given)
	}
	if got := mustRun(t, f.run, "--json", "root", "recovery", "create", "--out", out); !strings.Contains(got.out, `"sheets": []`) {
		t.Errorf("%+v", got)
	}
	f.asked = nil
	if got := try(t, f.run, "", "root", "recovery", "create", "--shares", "3", "--threshold", "2", "--out", out); got.code != 6 || len(f.asked) > 0 {
		t.Errorf("over files that are there: %+v, asked %q", got, f.asked)
	}
	f.refuse = errUndone
	if got := try(t, f.run, "", "root", "recovery", "create", "--out", out+".new"); got.code == 0 {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(out + ".new"); err == nil {
		t.Error("a file without a kit is left")
	}
}

// noRoom is a stdout that takes nothing.
type noRoom struct{}

func (noRoom) Write([]byte) (int, error) { return 0, syscall.ENOSPC }

// TestUntoldSecretsGo: a slot whose secret could not be printed, or written, does not stay: nobody has what opens it. One that is
// whole in its file does, whatever becomes of what is printed besides.
func TestUntoldSecretsGo(t *testing.T) {
	full := func(f *fake, args ...string) (int, string) {
		var errs strings.Builder
		a := &app{hooks: Hooks{Env: env(f.run)}, isTerminal: func(any) bool { return false }, hide: func() error { return nil }}
		return a.main(context.Background(), args, strings.NewReader(""), noRoom{}, &errs), errs.String()
	}
	for _, line := range []string{"root recovery create", "root recovery create --json", "root slot add credential"} {
		f := serveFake(t)
		was := len(f.root.Slots)
		if code, errs := full(f, strings.Fields(line)...); code != 1 || len(f.root.Slots) != was || !strings.Contains(errs, "was removed again") {
			t.Errorf("%s: exit %d, %q, slots %+v", line, code, errs, f.root.Slots)
		}
		out := filepath.Join(t.TempDir(), "out")
		if code, errs := full(f, append(strings.Fields(line), "--out", out)...); code != 1 || len(f.root.Slots) != was+1 || strings.Contains(errs, "removed") {
			t.Errorf("%s --out: exit %d, %q, slots %+v", line, code, errs, f.root.Slots)
		}
		if _, err := os.Stat(out); err != nil {
			t.Error(err)
		}
		if got := try(t, f.run, "", append(strings.Fields(line), "--out", "/dev/full")...); got.code != 6 {
			t.Errorf("%s: over a file that is there: %+v", line, got)
		}
	}
}

// TestRecoveryTyped: a person types sheets line by line; a typo is asked for again, and sheets that don't help are not taken.
func TestRecoveryTyped(t *testing.T) {
	shares, other := fakeKit(5, 3, 1), fakeKit(5, 3, 2)
	one := linesOf(shares, 1)
	typo := "0" + one[1:5] + "x" + one[6:]
	for name, c := range map[string]struct {
		typed string
		code  int
		says  string
		given []int
	}{
		"three sheets":   {one + linesOf(shares, 5) + linesOf(shares, 2), 0, "this is share 1 of 5; 3 are needed\nSheet 2, line 1: ", []int{1, 5, 2}},
		"a typo":         {strings.SplitAfter(typo, "\n")[0] + one + linesOf(shares, 5) + linesOf(shares, 2), 0, "sheet 1, line 1: its last group does not fit: look for a typo\nSheet 1, line 1: ", []int{1, 5, 2}},
		"twice the same": {one + one + linesOf(shares, 5) + linesOf(shares, 2), 0, "share 1 was given already; take another sheet\nSheet 2, line 1: ", []int{1, 5, 2}},
		"another kit's":  {one + linesOf(other, 2) + linesOf(shares, 5) + linesOf(shares, 2), 0, "that sheet is of another kit", []int{1, 5, 2}},
		"too few":        {one + linesOf(shares, 2), 1, "nothing was done", nil},
		"in capitals":    {strings.ToUpper(one + linesOf(shares, 5) + linesOf(shares, 2)), 0, "", []int{1, 5, 2}},
	} {
		t.Run(name, func(t *testing.T) {
			f := lockedFake(serveFake(t), "none")
			got := try(t, f.run, c.typed, "root", "recovery", "open")
			if got.code != c.code || !strings.Contains(got.err, c.says) || (len(f.given) == 1) != (c.given != nil) {
				t.Fatalf("%+v, given %d", got, len(f.given))
			}
			want := ""
			for _, n := range c.given {
				want += string(shares[(n-1)*kit.ShareSize:][:kit.ShareSize])
			}
			if c.given != nil && f.given[0] != want {
				t.Errorf("given %x, want %x", f.given[0], want)
			}
		})
	}
}

// TestRecoveryFilesThatAreNone: what is wrong is named by file, sheet and line, and nothing is sent.
func TestRecoveryFilesThatAreNone(t *testing.T) {
	f := serveFake(t)
	sheet := mustRun(t, f.run, "root", "recovery", "create").out
	dir := t.TempDir()
	for name, c := range map[string]struct{ text, says string }{
		"no sheet":  {"nothing", "holds no sheet"},
		"a typo":    {strings.Replace(sheet, "line 2   0", "line 2   1", 1), "sheet 1, line 2: its last group does not fit"},
		"cut short": {sheet[:strings.Index(sheet, "    line 4")], "sheet 1, line 4: it is missing"},
		"too long":  {strings.Repeat("x", 64<<10) + "x", "longer than a kit"},
	} {
		path := filepath.Join(dir, "kit")
		if err := os.WriteFile(path, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := try(t, f.run, "", "root", "recovery", "verify", "--kit", path); got.code != 2 || !strings.Contains(got.err, c.says) || len(f.given) > 0 {
			t.Errorf("%s: %+v", name, got)
		}
	}
	if got := try(t, f.run, "", "root", "recovery", "verify", "--kit", dir+"/none"); got.code != 2 {
		t.Errorf("%+v", got)
	}
	if got := try(t, f.run, "", "root", "recovery", "verify"); got.code != 2 || !strings.Contains(got.err, "--kit") {
		t.Errorf("without a terminal: %+v", got)
	}
	if got := try(t, f.run, sheet, "root", "recovery", "verify", "--kit", "-"); got.code != 0 || len(f.given) != 1 || !strings.Contains(got.out, "recovery") {
		t.Errorf("%+v", got)
	}
}

// TestSlotsOfOtherKinds: what is asked of the daemon, and that a credential alone goes to stdout.
func TestSlotsOfOtherKinds(t *testing.T) {
	f := serveFake(t)
	out := filepath.Join(t.TempDir(), "credential")
	for line, asked := range map[string]string{
		"root slot add key-file": "POST /v1/root/slots/key-file?project=default ",
		"root slot add tpm2":     `POST /v1/root/slots/tpm2?project=default {"name":"tpm2","pcrs":"","device":""}`,
		"root slot add tpm2 --name boot --pcrs sha256:4,7 --tpm-device /run/../dev/tpm0": `{"name":"boot","pcrs":"sha256:4,7","device":"/dev/tpm0"}`,
		"root slot reseal boot --pcrs none":                                              `POST /v1/root/slots/boot/reseal?project=default {"pcrs":"none","device":""}`,
		"root slot add credential --credential mine --out " + out:                        `{"name":"credential","credential":"mine"}`,
		"root slot add credential --secret-file testdata/passphrase":                     "POST /v1/root/slots/credential/given?",
	} {
		f.asked = nil
		if got := mustRun(t, f.run, strings.Fields(line)...); !strings.Contains(strings.Join(f.asked, "\n"), asked) || strings.Contains(got.out, "5e5e") {
			t.Errorf("%s: %+v, asked %q", line, got, f.asked)
		}
	}
	secret := strings.Repeat("5e", 32) + "\n"
	if text, err := os.ReadFile(out); err != nil || string(text) != secret {
		t.Errorf("%q, %v", text, err)
	}
	if got := mustRun(t, f.run, "root", "slot", "add", "credential"); got.out != secret {
		t.Errorf("%+v", got)
	}
	for _, line := range []string{"root slot add tpm2 --tpm-device=", "root slot add credential --out x --secret-file y", "root slot reseal"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 2 {
			t.Errorf("%s: %+v", line, got)
		}
	}
}
