package token

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// behaviour makes this program a helper that behaves so.
const behaviour = "NBDCRYPT_TEST_HELPER"

func TestMain(m *testing.M) {
	switch os.Getenv(behaviour) {
	case "":
		os.Exit(m.Run())
	case "echo": // the data as it came, and what was asked
		b, _ := io.ReadAll(os.Stdin)
		r, err := ParseRequest(b)
		if err != nil {
			os.Exit(3)
		}
		if r.Operation == Seal {
			os.Stdout.Write(append([]byte{byte(Done), byte(AESGCM)}, r.Data...))
		} else {
			os.Stdout.Write(append([]byte{byte(Done)}, r.Data...))
		}
	case "environment":
		os.Stdout.WriteString("\x00" + strings.Join(os.Environ(), "\n"))
	case "away":
		os.Stdout.WriteString("\x01there is no such token")
	case "pin":
		os.Stdout.WriteString("\x02the PIN is wrong")
	case "no pin":
		os.Stdout.WriteString("\x05the PIN's file has mode 0644")
	case "altered":
		os.Stdout.WriteString("\x03whatever")
	case "unfit":
		os.Stdout.WriteString("\x04it is weak")
	case "crash":
		os.Exit(3)
	case "short":
		os.Stdout.WriteString("\x00x")
	case "deaf", "stuck":
		if os.Getenv(behaviour) == "stuck" {
			os.Stdout.WriteString("\x00")
		}
		time.Sleep(time.Hour)
	}
	os.Exit(0)
}

// helped is a key whose helper is this program, behaving so.
func helped(t *testing.T, how string) *Key {
	t.Helper()
	t.Setenv(behaviour, how)
	k := New(request(t, Find).Key)
	k.run = func(ctx context.Context, r Request, take func(io.Reader) error) (Answer, string, error) {
		return runProgram(ctx, "/proc/self/exe", r, take)
	}
	return k
}

func TestHelperGetsAllAndAnswers(t *testing.T) {
	k := helped(t, "echo")
	data := bytes.Repeat([]byte{0, 1, 0xff}, 600)
	m, sealed, err := k.Seal(t.Context(), data, []byte("bound"))
	if err != nil || m != AESGCM || !bytes.Equal(sealed, data) {
		t.Fatalf("%v, %d bytes, %v", m, len(sealed), err)
	}
	dst := make([]byte, len(data))
	if err := k.Open(t.Context(), dst, m, sealed, nil); err != nil || !bytes.Equal(dst, data) {
		t.Errorf("it opens to %d bytes, %v", len(dst), err)
	}
	for _, n := range []int{len(data) - 1, len(data) + 1} {
		dst := make([]byte, n)
		if err := k.Open(t.Context(), dst, m, sealed, nil); !errors.Is(err, ErrAway) || !bytes.Equal(dst, make([]byte, n)) {
			t.Errorf("%d bytes for %d: %v", n, len(data), err)
		}
	}
}

// A module finds its settings in the environment, and nothing there that is the daemon's own.
func TestHelpersEnvironment(t *testing.T) {
	k := helped(t, "environment")
	t.Setenv("SOFTHSM2_CONF", "/etc/some.conf")
	for _, name := range ownVariables {
		t.Setenv(name, "x")
	}
	words, err := k.Find(t.Context())
	lines := strings.Split(words, "\n")
	if err != nil || len(words) != maxWords && !slices.Contains(lines, "SOFTHSM2_CONF=/etc/some.conf") {
		t.Errorf("%v, %q", err, lines)
	}
	if got := environment([]string{"A=b", "NOTIFY_SOCKET=/run/x", "SOFTHSM2_CONF=c", "LISTEN_FDS=3"}); !slices.Equal(got, []string{"A=b", "SOFTHSM2_CONF=c"}) {
		t.Errorf("it gets %q", got)
	}
}

func TestRefusalsSayWhatAndWhatNext(t *testing.T) {
	for how, want := range map[string][2]string{
		"away":   {"there is no such token", "see that the token is there"},
		"pin":    {"the PIN is wrong", "/etc/nbdcrypt/pin"},
		"unfit":  {"it is weak", "name another key"},
		"no pin": {"mode 0644", "put right what is said"},
		"crash":  {"ended early: exit status 3", "see that"},
		"short":  {"its answer", "see that"},
	} {
		err := helped(t, how).Open(t.Context(), make([]byte, 32), AESGCM, make([]byte, 60), nil)
		r := refusal.From(err)
		if !errors.Is(err, ErrAway) || r.Code != refusal.Locked || !strings.Contains(r.Message, want[0]) || !strings.Contains(r.Hint, want[1]) ||
			!strings.Contains(r.Message, "pkcs11:token=My%20token;object=root") {
			t.Errorf("%s: %+v", how, r)
		}
	}
	if err := helped(t, "altered").Open(t.Context(), make([]byte, 32), AESGCM, make([]byte, 60), nil); !errors.Is(err, ErrAltered) || errors.Is(err, ErrAway) {
		t.Errorf("altered: %v", err)
	}
	k := New(request(t, Find).Key)
	t.Setenv("PATH", t.TempDir())
	if _, err := k.Find(t.Context()); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "make pkcs11") {
		t.Errorf("without a helper: %v", err)
	}
}

// A token that hangs is cut off, also where it has begun to answer; who gives up is not kept that long.
func TestHangingTokenIsCutOff(t *testing.T) {
	defer func(l time.Duration) { limit = l }(limit)
	limit = 300 * time.Millisecond
	for _, how := range []string{"deaf", "stuck"} {
		from := time.Now()
		err := helped(t, how).Open(t.Context(), make([]byte, 32), AESGCM, make([]byte, 60), nil)
		if took := time.Since(from); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "300ms") || took < limit || took > limit+10*time.Second {
			t.Errorf("%s: %v after %v", how, err, took)
		}
	}
	limit = time.Hour
	ctx, cancel := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, errors.New("it was waited for"))
	defer cancel()
	if _, err := helped(t, "deaf").Find(ctx); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "it was waited for") {
		t.Errorf("with less time: %v", err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	if _, err := helped(t, "deaf").Find(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, ErrAway) {
		t.Errorf("given up: %v", err)
	}
}

// Wrong PINs lock a token, so one is given once.
func TestWrongPINIsNotTriedAgain(t *testing.T) {
	k := helped(t, "pin")
	k.uri.PINFile = filepath.Join(t.TempDir(), "pin")
	asked := 0
	run := k.run
	k.run = func(ctx context.Context, r Request, take func(io.Reader) error) (Answer, string, error) {
		asked++
		return run(ctx, r, take)
	}
	try := func() {
		t.Helper()
		if _, err := k.Find(t.Context()); !errors.Is(err, ErrAway) || !strings.Contains(err.Error(), "wrong") {
			t.Errorf("with a wrong PIN: %v", err)
		}
	}
	write := func(pin string) {
		t.Helper()
		if err := os.WriteFile(k.uri.PINFile+".new", []byte(pin), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(k.uri.PINFile+".new", k.uri.PINFile); err != nil {
			t.Fatal(err)
		}
	}
	write("1234")
	try()
	try()
	if asked != 1 {
		t.Errorf("the token was asked %d times", asked)
	}
	write("1235")
	try()
	if asked != 2 {
		t.Errorf("with another PIN the token was asked %d times", asked)
	}
	other := helped(t, "pin")
	other.uri.PINFile, other.uri.Object, other.run = k.uri.PINFile, "another", k.run
	if _, err := other.Find(t.Context()); !errors.Is(err, ErrAway) || asked != 2 {
		t.Errorf("for another key the token was asked: %v, asked %d times", err, asked)
	}
	write("1236")
	t.Setenv(behaviour, "echo")
	if _, err := k.Find(t.Context()); err != nil || asked != 3 {
		t.Errorf("with the right PIN: %v, asked %d times", err, asked)
	}
}

// A PIN that the token was not given is not known to be wrong: putting right its file's mode, say, is enough.
func TestPINThatWasNotGivenIsTriedAgain(t *testing.T) {
	k := helped(t, "no pin")
	k.uri.PINFile = filepath.Join(t.TempDir(), "pin")
	if err := os.WriteFile(k.uri.PINFile, []byte("1234"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Find(t.Context()); !errors.Is(err, ErrAway) {
		t.Errorf("without a PIN: %v", err)
	}
	t.Setenv(behaviour, "echo")
	if _, err := k.Find(t.Context()); err != nil {
		t.Errorf("with it: %v", err)
	}
}

func TestOnlyOurOwnFilesAreTrusted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "dir")
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(dir, 0o755))
	must(os.WriteFile(file, nil, 0o755))
	must(os.Symlink(file, link))
	if path, err := Trusted(link); err != nil || filepath.Base(path) != "file" {
		t.Fatalf("%s, %v", path, err)
	}
	must(os.Chmod(file, 0o757))
	if _, err := Trusted(link); err == nil || !strings.Contains(err.Error(), "0757") {
		t.Errorf("a file that all may write: %v", err)
	}
	must(os.Chmod(file, 0o755))
	must(os.Chmod(dir, 0o775))
	if _, err := Trusted(file); err == nil || !strings.Contains(err.Error(), dir) {
		t.Errorf("a directory that a group may write: %v", err)
	}
	must(os.Chmod(dir, 0o777|os.ModeSticky))
	if _, err := Trusted(file); err != nil {
		t.Errorf("a sticky directory: %v", err)
	}
	if _, err := Trusted(dir); err == nil {
		t.Error("a directory is run")
	}
	if os.Geteuid() == 0 {
		must(os.Chown(file, 65534, 0))
		if _, err := Trusted(file); err == nil || !strings.Contains(err.Error(), "65534") {
			t.Errorf("somebody's file: %v", err)
		}
	}
}
