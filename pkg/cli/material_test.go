package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

// TestRuleB7_ImportOnTheCommandLine: prepare writes two files, never over others; import sends what the files hold.
func TestRuleB7_ImportOnTheCommandLine(t *testing.T) {
	f, dir := serveFake(t), filepath.Join(t.TempDir(), "new")
	try(t, f.run, "", "key", "create", "k")
	got := try(t, f.run, "", "key", "import", "k", "--prepare", dir)
	if got.code != 0 || !strings.Contains(got.out, "import token  "+dir+"/import-token\n") || !strings.Contains(got.err, "openssl pkeyutl -encrypt -pubin -inkey "+dir+"/wrapping-key.pem ") {
		t.Errorf("%+v", got)
	}
	for name, want := range map[string]string{"wrapping-key.pem": "a public key\n", "import-token": "a token\n"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil || string(text) != want {
			t.Errorf("%s holds %q, %v", name, text, err)
		}
		f.asked = nil
		if got := try(t, f.run, "", "key", "import", "k", "--prepare", dir); got.code != int(refusal.Busy) || !strings.Contains(got.err, "exists already") || len(f.asked) != 0 {
			t.Errorf("over %s: %+v, asked %q", name, got, f.asked)
		}
	}
	// With no place for the files nothing is asked, since that voids the token of before; and nothing is left where nothing came.
	f.asked = nil
	if got := try(t, f.run, "", "key", "import", "k", "--prepare", filepath.Join(dir, "no", "parent")); got.code != int(refusal.Failed) || len(f.asked) != 0 {
		t.Errorf("without a place: %+v, asked %q", got, f.asked)
	}
	unused := filepath.Join(dir, "unused")
	if got := try(t, f.run, "", "key", "import", "none", "--prepare", unused); got.code == 0 {
		t.Errorf("%+v", got)
	}
	if _, err := os.Stat(unused); err == nil {
		t.Error("a folder stays that nothing was put into")
	}
	material := filepath.Join(dir, "material")
	if err := os.WriteFile(material, []byte("wrapped"), 0o600); err != nil {
		t.Fatal(err)
	}
	line := []string{"key", "import", "k", "--token", filepath.Join(dir, "import-token"), "--material", material}
	if got := try(t, f.run, "", append(line, "--expires", "2027-12-31T00:00:00Z")...); got.code != 0 || !strings.Contains(got.out, "expires  2027-12-31T00:00:00Z\n") {
		t.Errorf("%+v", got)
	}
	if got := try(t, f.run, "", line...); got.code != 0 || strings.Contains(got.out, "expires") {
		t.Errorf("%+v", got)
	}
	long := filepath.Join(dir, "long")
	if err := os.WriteFile(long, make([]byte, maxImportFile+1), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, wrong := range [][]string{{"--prepare", ""}, {"--prepare", dir, "--token", "x"}, {"--token", material}, {"--material", material}, {},
		{"--token", material, "--material", material}, {"--token", material, "--material", filepath.Join(dir, "none")}, {"--token", long, "--material", material},
		{"--token", material, "--material", material, "--expires", "tomorrow"}} {
		if got := try(t, f.run, "", append([]string{"key", "import", "k"}, wrong...)...); got.code != int(refusal.Usage) {
			t.Errorf("%q: %+v", wrong, got)
		}
	}
}

// TestRuleC5_RewrapTellsOfFailures: what could not be done is in the result, and is the exit code.
func TestRuleC5_RewrapTellsOfFailures(t *testing.T) {
	f := serveFake(t)
	got := try(t, f.run, "", "key", "rewrap", "k", "--to", "bad")
	if got.code != int(refusal.Damaged) || !strings.Contains(got.out, "disk d (1-2) stays as it was: the DEK of disk d is damaged\n") ||
		!strings.Contains(got.err, "1 use stayed as it was: the DEK") || !strings.Contains(got.err, "mend it") {
		t.Errorf("%+v", got)
	}
	if got := try(t, f.run, "", "key", "rewrap", "k"); got.code != 0 || got.out != "2 of 3 uses of key k put under version 2 of key k\n1 use: nothing to do\n" {
		t.Errorf("%+v", got)
	}
}
