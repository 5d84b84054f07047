package cli

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// TestUnlockOnATerminal: a person is asked where the key file is missing, up to three times, and where it is asked for.
func TestUnlockOnATerminal(t *testing.T) {
	for name, c := range map[string]struct {
		line, typed string
		code        int
		given       []string
		says        string
	}{
		"right":         {"root unlock", "right one\n", 0, []string{"right one"}, "/root.key is missing\nPassphrase of the root key: \n"},
		"second":        {"root unlock", "wrong\nright one\n", 0, []string{"wrong", "right one"}, "the passphrase opens no slot\nPassphrase"},
		"three wrong":   {"root unlock", "a\nb\nc\nright one\n", 10, []string{"a", "b", "c"}, "the passphrase opens no slot\n  → Type it"},
		"nothing typed": {"root unlock", "\n", 2, nil, "0 bytes"},
		"too long":      {"root unlock", strings.Repeat("x", 1025) + "\n", 2, nil, "1025 bytes"},
		"asked for":     {"root unlock --passphrase", "right one\n", 0, []string{"right one"}, "Passphrase of the root key: "},
	} {
		t.Run(name, func(t *testing.T) {
			f := lockedFake(serveFake(t), "right one")
			got := try(t, f.run, c.typed, strings.Fields(c.line)...)
			if got.code != c.code || !slices.Equal(f.given, c.given) || !strings.Contains(got.err, c.says) {
				t.Errorf("%+v, given %q", got, f.given)
			}
			if opened := got.out == "the root key is open, by slot alice (p)\n"; opened != (c.code == 0) {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestUnlockWithoutATerminal: nobody is asked, a file is read, and what would help is said.
func TestUnlockWithoutATerminal(t *testing.T) {
	f := lockedFake(serveFake(t), "correct horse")
	for line, code := range map[string]int{"root unlock": 10, "root unlock --passphrase": 2, "root slot add passphrase": 2} {
		got := try(t, f.run, "", strings.Fields(line)...)
		if got.code != code || got.out != "" || !strings.Contains(got.err, "--passphrase-file") || len(f.given) > 0 {
			t.Errorf("%s: %+v, given %q", line, got, f.given)
		}
	}
	if got := try(t, f.run, "", "root", "unlock", "--passphrase-file", "testdata/passphrase"); got.code != 0 || f.given[0] != "correct horse" {
		t.Errorf("%+v, given %q", got, f.given)
	}
	if got := try(t, f.run, "", "root", "unlock", "--passphrase-file", "testdata/passphrase"); got.code != 0 || len(f.given) != 1 ||
		got.out != "the root key is open already\n" {
		t.Errorf("%+v, given %q", got, f.given)
	}
	if got := try(t, f.run, "", "root", "unlock", "--passphrase-file", "x", "--passphrase"); got.code != 2 {
		t.Errorf("both flags: %+v", got)
	}
}

// TestUnlockNamesTheKit: where nothing else that a person has would open it, a refusal names the way by a recovery kit.
func TestUnlockNamesTheKit(t *testing.T) {
	f := lockedFake(serveFake(t), "")
	f.root.Slots[1].Kind = control.SlotRecovery
	got := try(t, f.run, "", "root", "unlock")
	if got.code != 10 || !strings.Contains(got.err, "nbdcrypt root recovery open") || !strings.Contains(got.err, "Put it back.") {
		t.Errorf("%+v", got)
	}
	f.root.Slots[1].Present = false
	if got := try(t, f.run, "", "root", "unlock"); got.code != 10 || strings.Contains(got.err, "recovery") {
		t.Errorf("where its slot is damaged: %+v", got)
	}
}

// TestEmptyPassphraseFile: a variable that is not set names no file, and what it should have named is not done another way.
func TestEmptyPassphraseFile(t *testing.T) {
	for _, line := range []string{"root unlock", "root slot add passphrase"} {
		f := serveFake(t)
		got := try(t, f.run, "typed one\ntyped one\n", append(strings.Fields(line), "--passphrase-file", "")...)
		if got.code != 2 || f.given != nil || !strings.Contains(got.err, "--passphrase-file") {
			t.Errorf("%s: %+v, given %q", line, got, f.given)
		}
	}
}

// TestPassphraseFiles: what is in a file counts byte for byte, but for one newline at its end.
func TestPassphraseFiles(t *testing.T) {
	long := strings.Repeat("x", control.MaxPassphrase)
	for text, want := range map[string]string{
		"p": "p", "p\n": "p", "p\n\n": "p\n", " p\r\n": " p\r", "a\nb": "a\nb", "\x00\xff": "\x00\xff", long: long, long + "\n": long,
		"": "", "\n": "", long + "x": "", long + "xx": "", long + "xxx\n": "", long + "\n\n": "",
	} {
		name := filepath.Join(t.TempDir(), "p")
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		f := lockedFake(serveFake(t), "other")
		got := try(t, f.run, "", "root", "unlock", "--passphrase-file", name)
		if want == "" && (got.code != 2 || f.given != nil) || want != "" && !slices.Equal(f.given, []string{want}) {
			t.Errorf("%.20q: given %.20q, %+v", text, f.given, got)
		}
		a := &app{hooks: Hooks{Env: env(f.run)}, isTerminal: func(any) bool { return false }, hide: func() error { return nil }}
		f.given = nil
		a.main(context.Background(), []string{"root", "unlock", "--passphrase-file", "-"}, strings.NewReader(text), io.Discard, io.Discard)
		if want != "" && !slices.Equal(f.given, []string{want}) {
			t.Errorf("%.20q on stdin: given %.20q", text, f.given)
		}
	}
	f := lockedFake(serveFake(t), "other")
	if got := try(t, f.run, "", "root", "unlock", "--passphrase-file", "testdata"); got.code != 1 || f.given != nil {
		t.Errorf("a directory: %+v", got)
	}
	if got := try(t, f.run, "", "root", "unlock", "--passphrase-file", "testdata/none"); got.code != 2 || !strings.Contains(got.err, "--passphrase-file") {
		t.Errorf("no file: %+v", got)
	}
}

// TestSlotAddAsksTwice: what was typed once may be mistyped.
func TestSlotAddAsksTwice(t *testing.T) {
	for typed, code := range map[string]int{"long enough\nlong enough\n": 0, "long enough\nlong enuogh\n": 2, "long enough\n": 2} {
		f := serveFake(t)
		got := try(t, f.run, typed, "root", "slot", "add", "passphrase", "--name", "alice")
		if got.code != code || (code == 0) != slices.Equal(f.given, []string{"long enough"}) || (code == 0) != strings.Contains(got.out, "alice") {
			t.Errorf("%q: %+v, given %q", typed, got, f.given)
		}
	}
}

// TestHideComesFirst: nothing is read, and no key asked for, while others could look into the process.
func TestHideComesFirst(t *testing.T) {
	f := lockedFake(serveFake(t), "right one")
	for _, line := range []string{"root unlock", "root unlock --passphrase-file testdata/passphrase", "root unlock --passphrase-file -",
		"root slot add passphrase", "disk escrow none --yes"} {
		in, read := strings.NewReader("right one\n"), false
		a := &app{hooks: Hooks{Env: env(f.run)}, isTerminal: func(any) bool { return true }, hide: func() error { return fmt.Errorf("no prctl") },
			typed: func(context.Context, io.Reader) ([]byte, error) { read = true; return nil, nil }}
		var errs bytes.Buffer
		code := a.main(context.Background(), strings.Fields(line), in, io.Discard, &errs)
		if code != 1 || read || in.Len() != 10 || !strings.Contains(errs.String(), "no prctl") {
			t.Errorf("%s: %d %s", line, code, &errs)
		}
	}
}

// TestSlotRemoveAsks: it wants a yes, and says what a removed key file means.
func TestSlotRemoveAsks(t *testing.T) {
	f := lockedFake(serveFake(t), "right one")
	if got := try(t, f.run, "n\n", "root", "slot", "remove", "alice"); got.code != 9 || len(f.root.Slots) != 2 {
		t.Errorf("no: %+v", got)
	}
	if got := try(t, f.run, "y\n", "root", "slot", "remove", "alice"); got.code != 0 || got.out != "" || !strings.Contains(got.err, "slot alice (p) is removed") {
		t.Errorf("yes: %+v", got)
	}
	if got := try(t, f.run, "", "root", "slot", "remove", "key-file", "--yes"); got.code != 0 || !strings.Contains(got.err, "/root.key was wiped") {
		t.Errorf("key file: %+v", got)
	}
}
