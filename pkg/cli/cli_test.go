package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

func newReader(b []byte) io.Reader { return bytes.NewReader(b) }

// checking is what the fake's check does.
func (f *fake) checking(report control.CheckReport) control.Work {
	return func(context.Context, func(done, total int64)) (any, error) { return report, nil }
}

// env is an environment that leads to one run directory and nowhere else.
func env(run string) Env {
	return Env{UID: 1000, Getenv: func(name string) string {
		return map[string]string{"NBDCRYPT_RUN": run, "HOME": "/home/u", "NBDCRYPT_STATE": os.Getenv("STATE_FOR_TEST")}[name]
	}}
}

// answer is what one command line did.
type answer struct {
	code     int
	out, err string
}

// try runs a command line; stdin is a terminal where something is typed.
func try(t *testing.T, run, typed string, args ...string) answer {
	t.Helper()
	var out, errs bytes.Buffer
	a := &app{hooks: Hooks{Env: env(run)}, isTerminal: func(stream any) bool { _, in := stream.(*strings.Reader); return in && typed != "" },
		typed: typedLine, hide: func() error { return nil }, machine: machine{uid: 1000, backend: noDevice, devices: func() []string { return nil },
			qemu: func() error { return nil }, runServer: noRunner, console: noConsole}}
	code := a.main(context.Background(), args, strings.NewReader(typed), &out, &errs)
	return answer{code, out.String(), errs.String()}
}

// noDevice is how a device is that nobody has connected.
func noDevice(string) (string, bool, error) { return "", false, nil }

var update = flag.Bool("update", false, "write the golden files anew")

// TestGolden plays testdata/*.session: lines "$ COMMAND" are run against a fake daemon, and what is behind each is what it
// asked (>), printed (nothing in front), said on stderr (!) and its exit code where that is not 0.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.session")
	if err != nil || len(files) < 3 {
		t.Fatalf("sessions: %q, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(want))
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if got != string(want) {
				t.Errorf("%s is not what happens (see -update):\n%s", file, got)
			}
		})
	}
}

func play(t *testing.T, session string) string {
	f := serveFake(t)
	f.check.Disks, f.check.Keys, f.check.Blocks = 2, 2, 4096
	f.attest.Bytes, f.attest.Regions = 108056576, 22
	var b strings.Builder
	for _, line := range strings.Split(session, "\n") {
		command, is := strings.CutPrefix(line, "$ nbdcrypt ")
		if strings.HasPrefix(line, "#") {
			fmt.Fprintln(&b, line)
		}
		if !is {
			continue
		}
		f.asked = nil
		got := try(t, f.run, "", strings.Fields(command)...)
		fmt.Fprintln(&b, line)
		prefixed(&b, "> ", strings.Join(f.asked, "\n"))
		prefixed(&b, "", got.out)
		prefixed(&b, "! ", got.err)
		if got.code != 0 {
			fmt.Fprintf(&b, "exit %d\n", got.code)
		}
	}
	return strings.ReplaceAll(b.String(), f.run, "/run/nbdcrypt")
}

func prefixed(b *strings.Builder, prefix, text string) {
	for _, line := range strings.Split(strings.TrimSuffix(text, "\n"), "\n") {
		if text != "" {
			fmt.Fprintln(b, strings.TrimRight(prefix+line, " "))
		}
	}
}

// TestExitCodes: whatever the daemon refuses with is the exit code, in both forms of the error.
func TestExitCodes(t *testing.T) {
	f := serveFake(t)
	for code := refusal.Failed; code <= refusal.Locked; code++ {
		f.refuse = refusal.New(code, "do <that>", "was refused")
		if got := try(t, f.run, "", "disk", "show", "d"); got != (answer{int(code), "", "nbdcrypt: was refused\n  → do <that>\n"}) {
			t.Errorf("code %d: %+v", code, got)
		}
		want := fmt.Sprintf(`{"error":{"code":%d,"message":"was refused","hint":"do <that>"}}`+"\n", code)
		if got := try(t, f.run, "", "disk", "show", "d", "--json"); got != (answer{int(code), "", want}) {
			t.Errorf("code %d: %+v", code, got)
		}
	}
}

// TestEveryCallFails walks through every command that talks to the daemon: a refusal ends each with its code and no result.
func TestEveryCallFails(t *testing.T) {
	f := serveFake(t)
	f.refuse = refusal.New(refusal.Locked, "unlock it", "the root key is not open")
	for _, line := range daemonCommands() {
		got := try(t, f.run, "", strings.Fields(line)...)
		if got.code != int(refusal.Locked) || got.out != "" || !strings.Contains(got.err, "not open") {
			t.Errorf("%s: %+v", line, got)
		}
		got = try(t, filepath.Join(f.run, "none"), "", strings.Fields(line)...)
		if got.code != int(refusal.Unreachable) || got.out != "" || !strings.Contains(got.err, "nbdcrypt serve --run "+f.run) {
			t.Errorf("%s without a daemon: %+v", line, got)
		}
	}
}

func daemonCommands() []string {
	return []string{
		"status", "status --keys", "check", "check d", "grant create", "grant list", "grant revoke", "key create k", "key list",
		"key show k", "key enable k", "key disable k", "key disable k --dry-run", "key uses k", "key update k --alias l", "key schedule-deletion k --days 7",
		"key schedule-deletion k --days 7 --dry-run", "key cancel-deletion k", "key delete k", "key delete k --dry-run", "clock show", "clock accept", "disk create d --size 1M", "disk list", "disk show d", "disk extend d --size 1G",
		"key rotate k", "key rotation k --days 30", "key rewrap k", "key rewrap k --to l", "key import k --prepare testdata/none",
		"key import k --token testdata/passphrase --material testdata/passphrase", "key delete-material k", "key delete-material k --yes",
		"key delete-material k --dry-run", "disk rewrap d --key k",
		"disk delete d", "disk delete d --yes", "disk escrow d", "disk escrow d --yes", "disk export d none --ciphertext", "attach d", "detach d", "detach d --yes", "detach d --attest",
		"snapshot create d s", "snapshot list", "snapshot list --disk d", "snapshot show s", "snapshot rollback d s", "snapshot rollback d s --yes", "disk create e --from-snapshot s --full",
		"image create i --from-disk d", "image create i --from-file testdata/passphrase", "image create i --from-file testdata/passphrase --format raw --key k", "image copy i j", "image copy i j --plain", "image list",
		"image show i", "image delete i", "image delete i --yes",
		"backup create d b", "backup create d b --full", "backup list", "backup list --disk d", "backup show b", "backup verify b", "backup export b none", "backup export b -", "backup delete b",
		"backup delete b --yes", "backup prune d --keep 2", "backup prune d --keep 2 --yes", "backup key", "backup import ../../testdata/backup/v1/full.nbdbackup", "disk create e --from-backup b",
		"image create i --from-server s", "server create s --image i", "server list", "server show s", "server show s --libvirt", "server start s --foreground", "server stop s", "server stop s --yes", "server stop s t", "server console s",
		"server attach s d", "server attach s d --system", "server detach s d", "server detach s d --yes", "server delete s", "server delete s --yes",
		"scaling config create c --from-server s", "scaling config create c --from-image i", "scaling config list", "scaling config show c", "scaling config delete c", "scaling config delete c --yes",
		"scaling group create g --config c --min 1 --max 2", "scaling group create g --config c --min 1 --max 2 --start", "scaling group list", "scaling group show g", "scaling group scale g 2", "scaling group scale g 2 --start --yes", "scaling group scale g 1 --force --yes",
		"scaling group delete g", "scaling group delete g --yes", "scaling group delete g --force --yes",
		"project create p", "project list", "project show p", "project set p --encrypt-by-default on", "project delete p", "project delete p --yes",
		"role grant u user", "role list", "role revoke u user", "key grant k u decrypt", "key grants k", "key revoke k g", "key retire k g",
		"root unlock", "root unlock --passphrase-file testdata/passphrase", "root lock", "root slot list",
		"root slot add passphrase --passphrase-file testdata/passphrase", "root slot remove s", "root slot remove s --yes",
		"root slot add pkcs11 --token pkcs11:token=t;object=o?module-path=/m",
	}
}

func TestConfirmOnATerminal(t *testing.T) {
	for _, c := range []struct {
		line, typed string
		code        refusal.Code
		asks        string
	}{
		{"disk delete d", "n\n", refusal.Confirm, "disk d will be deleted"},
		{"disk delete d", "\n", refusal.Confirm, "[y/N]"},
		{"disk delete d", "yes please\n", refusal.Confirm, "[y/N]"},
		{"disk delete none", "y\n", refusal.NotFound, ""},
		{"disk delete d", "y\n", refusal.OK, "can't be restored"},
		{"disk delete d", "YES", refusal.OK, "can't be restored"},
		{"snapshot rollback d s", "n\n", refusal.Confirm, "written since is lost"},
		{"snapshot rollback d s", "y\n", refusal.OK, "written since is lost"},
		{"server delete s", "n\n", refusal.Confirm, "server s will be deleted"},
		{"server delete s", "y\n", refusal.OK, "server s will be deleted"},
		{"scaling config delete c", "n\n", refusal.Confirm, "c will be deleted"},
		{"scaling config delete c", "y\n", refusal.OK, "c is deleted"},
		{"scaling group delete g", "n\n", refusal.Confirm, "with its 1 members"},
		{"scaling group delete g", "y\n", refusal.OK, "g is deleted"},
		{"scaling group scale g 0", "n\n", refusal.Confirm, "1 members of scaling group g will be deleted"},
		{"scaling group scale g 0", "y\n", refusal.OK, "will be deleted, with their disks"},
		{"backup delete b", "n\n", refusal.Confirm, "b will be deleted"},
		{"backup prune d --keep 1", "y\n", refusal.OK, "these backups will be deleted"},
		{"disk escrow d", "n\n", refusal.Confirm, "in clear"},
		{"disk escrow d", "y\n", refusal.OK, "in clear"},
		{"grant revoke", "n\n", refusal.Confirm, "could not be attached any more. Go on?"},
		{"grant revoke", "y\n", refusal.OK, "could not be attached any more. Go on?"},
	} {
		f := serveFake(t)
		try(t, f.run, "", "grant", "create")
		try(t, f.run, "", "disk", "create", "d", "--size", "1M", "--encrypted")
		try(t, f.run, "", "snapshot", "create", "d", "s")
		try(t, f.run, "", "backup", "create", "d", "b")
		try(t, f.run, "", "backup", "create", "d", "c")
		for _, line := range []string{"image create i --from-disk d", "server create s --image i", "scaling config create c --from-server s", "scaling group create g --config c --min 0 --max 1", "scaling group scale g 1"} {
			try(t, f.run, "", strings.Fields(line)...)
		}
		f.asked = nil
		got := try(t, f.run, c.typed, strings.Fields(c.line)...)
		if got.code != int(c.code) || !strings.Contains(got.err, c.asks) {
			t.Errorf("%s, %q typed: %+v", c.line, c.typed, got)
		}
		if done := strings.Contains(strings.Join(f.asked, "\n"), "yes=true"); done != (c.code == refusal.OK) {
			t.Errorf("%s, %q typed: asked %q", c.line, c.typed, f.asked)
		}
	}
}

// TestRuleA23_DetachAsks: detaching a disk whose key is unusable names the state and wants a yes.
func TestRuleA23_DetachAsks(t *testing.T) {
	f := serveFake(t)
	for _, line := range []string{"grant create", "key create k", "disk create d --size 1M --key k", "attach d", "key disable k"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	if got := try(t, f.run, "", "detach", "d"); got.code != 9 || !strings.Contains(got.err, "k is Disabled") || !strings.Contains(got.err, "--yes") {
		t.Errorf("no terminal: %+v", got)
	}
	if got := try(t, f.run, "n\n", "detach", "d"); got.code != 9 || !strings.Contains(got.err, "k is Disabled") {
		t.Errorf("no: %+v", got)
	}
	if got := try(t, f.run, "y\n", "detach", "d"); got.code != 0 || got.out != "d is detached; 1 client was disconnected\n" {
		t.Errorf("yes: %+v", got)
	}
}

// TestRuleA13_DetachAttests: it prints what was searched; what was found is an error that names the places.
func TestRuleA13_DetachAttests(t *testing.T) {
	f := serveFake(t)
	f.attest = control.Attest{Bytes: 108056576, Regions: 22, Seconds: 0.1}
	detach := func(disk string, flags ...string) answer {
		if got := try(t, f.run, "", "attach", disk); got.code != 0 {
			t.Fatalf("%+v", got)
		}
		return try(t, f.run, "", append([]string{"detach", disk, "--attest"}, flags...)...)
	}
	for _, line := range []string{"grant create", "disk create d --size 1M --encrypted", "disk create p --size 1M"} {
		if got := try(t, f.run, "", strings.Fields(line)...); got.code != 0 {
			t.Fatalf("%s: %+v", line, got)
		}
	}
	detached := "d is detached; 1 client was disconnected\n"
	if got := detach("d"); got != (answer{0, detached + "searched 108056576 bytes in 22 regions: no trace of the key\n", ""}) {
		t.Errorf("nothing found: %+v", got)
	}
	if got := detach("p"); got.code != 0 || !strings.HasSuffix(got.out, "there was no key of it in memory to search for\n") {
		t.Errorf("a plain disk: %+v", got)
	}
	f.attest.Unreadable, f.attest.Found = 4096, 3
	f.attest.Hits = []control.AttestHit{
		{What: "round key 0 of the tweak key", Layer: "l", Region: "the Go heap", Address: "0xc000123450"},
		{What: "round key 1 of the tweak key", Layer: "l", Region: "the Go heap", Address: "0xc000123460"},
		{What: "bytes that are not zero: 1", Region: "key memory, free"},
	}
	got := detach("d")
	for _, part := range []string{
		"found: round key 1 of the tweak key\n  where: the Go heap 0xc000123460\n  layer: l\n", "found: bytes that are not zero: 1\n  where: key memory, free\n",
		"22 regions: 3 traces\n", "4096 bytes could not be read",
	} {
		if !strings.Contains(got.out, part) {
			t.Errorf("%q does not say %q", got.out, part)
		}
	}
	if got.code != 1 || !strings.Contains(got.err, "3 traces, in the Go heap, key memory, free\n") || !strings.Contains(got.err, "restart the daemon") {
		t.Errorf("found: %+v", got)
	}
	got = detach("d", "--json")
	var gone control.Detached
	if err := json.Unmarshal([]byte(got.out), &gone); err != nil || got.code != 1 || len(gone.Attest.Hits) != 3 || !strings.HasPrefix(got.err, `{"error":{"code":1,`) {
		t.Errorf("JSON: %+v, %v", got, err)
	}
}

func TestCheckFindsDamage(t *testing.T) {
	f := serveFake(t)
	f.check = control.CheckReport{Disks: 1, Findings: []control.Finding{
		{Severity: "note", What: "layer x", Where: "/p", Problem: "one of two headers is bad", Next: "nothing is lost"},
	}}
	if got := try(t, f.run, "", "check"); got.code != 0 || !strings.Contains(got.out, "note: layer x: one of two headers is bad\n  where: /p\n  next:  nothing is lost\n") {
		t.Errorf("a note: %+v", got)
	}
	f.check.Findings[0].Severity = "damage"
	if got := try(t, f.run, "", "check"); got.code != 8 || !strings.Contains(got.err, "1 finding of damage") {
		t.Errorf("damage: %+v", got)
	}
	got := try(t, f.run, "", "check", "--json")
	var report control.CheckReport
	if err := json.Unmarshal([]byte(got.out), &report); err != nil || got.code != 8 || len(report.Findings) != 1 || !strings.HasPrefix(got.err, `{"error":{"code":8,`) {
		t.Errorf("JSON: %+v, %v", got, err)
	}
}

// TestInterrupted: an interrupt ends a call, and a question that nobody answers, with a word and exit 1.
func TestInterrupted(t *testing.T) {
	f := serveFake(t)
	try(t, f.run, "", "disk", "create", "d", "--size", "1M")
	ctx, cancel := context.WithCancel(context.Background())
	asked := cancelWhen{cancel: cancel, word: "[y/N]"}
	never, stays := io.Pipe()
	defer stays.Close()
	a := &app{hooks: Hooks{Env: env(f.run)}, isTerminal: func(stream any) bool { return stream == any(never) }}
	code := a.main(ctx, []string{"disk", "delete", "d"}, never, io.Discard, &asked)
	if code != 1 || !strings.Contains(asked.String(), "interrupted: nothing was done") {
		t.Errorf("%d %s", code, &asked)
	}
	var errs bytes.Buffer
	if code := a.main(ctx, []string{"status"}, never, io.Discard, &errs); code != 1 || !strings.Contains(errs.String(), "interrupted") {
		t.Errorf("%d %s", code, &errs)
	}
}

// cancelWhen cancels once a word is written to it.
type cancelWhen struct {
	bytes.Buffer
	cancel func()
	word   string
}

func (c *cancelWhen) Write(p []byte) (int, error) {
	n, err := c.Buffer.Write(p)
	if strings.Contains(c.String(), c.word) {
		c.cancel()
	}
	return n, err
}

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errors.New("no space left") }

// TestResultNotPrinted: a result that could not be written is a failure, not a success that nobody saw.
func TestResultNotPrinted(t *testing.T) {
	f := serveFake(t)
	for _, args := range [][]string{{"status"}, {"status", "--json"}, {"version"}} {
		var errs bytes.Buffer
		code := Main(context.Background(), args, strings.NewReader(""), full{}, &errs, Hooks{Env: env(f.run)})
		if code != 1 || !strings.Contains(errs.String(), "no space left") {
			t.Errorf("%q: %d %s", args, code, &errs)
		}
	}
}
