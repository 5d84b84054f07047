package cli

import (
	"context"
	"io"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/refusal"
)

func TestDefaultPaths(t *testing.T) {
	user := map[string]string{"HOME": "/home/u"}
	xdg := map[string]string{"HOME": "/home/u", "XDG_STATE_HOME": "/s", "XDG_CONFIG_HOME": "/c", "XDG_RUNTIME_DIR": "/r"}
	odd := map[string]string{"HOME": "/home/u", "XDG_STATE_HOME": "rel", "XDG_CONFIG_HOME": "", "XDG_RUNTIME_DIR": "rel"}
	own := map[string]string{"NBDCRYPT_STATE": "/ns", "NBDCRYPT_ROOT_KEY": "/nk", "NBDCRYPT_RUN": "/nr", "XDG_STATE_HOME": "/s", "XDG_RUNTIME_DIR": "/r"}
	for _, c := range []struct {
		name  string
		vars  map[string]string
		uid   int
		place place
		flag  string
		want  string // empty: refused
	}{
		{"flag first", own, 0, statePlace(), "/f", "/f"},
		{"variable next", own, 0, statePlace(), "", "/ns"},
		{"variable next", own, 1000, rootKeyPlace(), "", "/nk"},
		{"variable next", own, 1000, runPlace(), "", "/nr"},
		{"root", xdg, 0, statePlace(), "", "/var/lib/nbdcrypt"},
		{"root", xdg, 0, rootKeyPlace(), "", "/etc/nbdcrypt/root.key"},
		{"root", xdg, 0, runPlace(), "", "/run/nbdcrypt"},
		{"XDG", xdg, 1000, statePlace(), "", "/s/nbdcrypt"},
		{"XDG", xdg, 1000, rootKeyPlace(), "", "/c/nbdcrypt/root.key"},
		{"XDG", xdg, 1000, runPlace(), "", "/r/nbdcrypt"},
		{"home", user, 1000, statePlace(), "", "/home/u/.local/state/nbdcrypt"},
		{"home", user, 1000, rootKeyPlace(), "", "/home/u/.config/nbdcrypt/root.key"},
		{"no fallback", user, 1000, runPlace(), "", ""},
		{"relative", odd, 1000, statePlace(), "", "/home/u/.local/state/nbdcrypt"},
		{"empty", odd, 1000, rootKeyPlace(), "", "/home/u/.config/nbdcrypt/root.key"},
		{"relative", odd, 1000, runPlace(), "", ""},
		{"on a token", own, 1000, rootKeyPlace(), "pkcs11:token=t;object=o?module-path=/m", "pkcs11:token=t;object=o?module-path=/m"},
		{"no path", own, 1000, rootKeyPlace(), "/pkcs11:", "/pkcs11:"},
		{"nothing", nil, 1000, statePlace(), "", ""},
	} {
		got, err := Env{UID: c.uid, Getenv: func(name string) string { return c.vars[name] }}.path(c.place, c.flag)
		if got != c.want || (err == nil) != (c.want != "") {
			t.Errorf("%s, %s: %q, %v, want %q", c.name, c.place.flag, got, err, c.want)
		}
		if r := refusal.From(err); r != nil && (r.Code != refusal.Usage || !strings.Contains(r.Hint, c.place.flag)) {
			t.Errorf("%s, %s: %+v", c.name, c.place.flag, r)
		}
	}
}

// TestServeOptions: what the daemon is started with is resolved and absolute.
func TestServeOptions(t *testing.T) {
	t.Chdir(t.TempDir())
	here, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (got ServeOptions) {
		hooks := Hooks{Env: env("/r"), Serve: func(_ context.Context, o ServeOptions, _, _ io.Writer) error { got = o; return nil }}
		if code := Main(context.Background(), append([]string{"serve"}, args...), strings.NewReader(""), io.Discard, io.Discard, hooks); code != 0 {
			t.Fatalf("%q: exit %d", args, code)
		}
		return got
	}
	got := run()
	if got.State != "/home/u/.local/state/nbdcrypt" || got.Pool != got.State+"/pool" || got.Run != "/r" ||
		got.RootKey != "/home/u/.config/nbdcrypt/root.key" || got.Region != "local" || len(got.Listen) != 0 || got.KeyMemory != "auto" {
		t.Errorf("defaults: %+v", got)
	}
	got = run("--state", "st", "--run", "ru", "--pool", "po", "--root-key", "k", "--region", "north", "--listen", "nbds://[::]:10809", "--listen", "nbd+unix:///?socket=/a,b", "--key-memory=locked")
	if got.State != here+"/st" || got.Run != here+"/ru" || got.Pool != here+"/po" || got.RootKey != here+"/k" || got.Region != "north" ||
		len(got.Listen) != 2 || got.Listen[1] != "nbd+unix:///?socket=/a,b" || got.KeyMemory != "locked" {
		t.Errorf("flags: %+v", got)
	}
	if got.Hook != "" || got.NotifyDays != 7 {
		t.Errorf("without a hook: %+v", got)
	}
	if got := run("--hook", "/usr/local/bin/tell", "--notify-days", "30"); got.Hook != "/usr/local/bin/tell" || got.NotifyDays != 30 {
		t.Errorf("with a hook: %+v", got)
	}
	for _, bad := range []string{"--hook=tell", "--hook=./tell", "--notify-days=0", "--notify-days=1097", "--notify-days=x"} {
		if got := try(t, "/r", "", "serve", bad); got.code != 2 {
			t.Errorf("%s: %+v", bad, got)
		}
	}
	if got := run("--state", "st"); got.Pool != here+"/st/pool" {
		t.Errorf("pool follows the state: %+v", got)
	}
}

// TestHooksFail: what serve and demo refuse with is told like any other refusal.
func TestHooksFail(t *testing.T) {
	var errs strings.Builder
	hooks := Hooks{Env: env("/r"),
		Serve: func(context.Context, ServeOptions, io.Writer, io.Writer) error {
			return refusal.New(refusal.Busy, "stop it", "another daemon runs")
		},
		Demo: func(_ context.Context, _ DemoOptions, stdout, _ io.Writer) error {
			_, err := io.WriteString(stdout, "told\n")
			return err
		},
	}
	if code := Main(context.Background(), []string{"serve"}, nil, io.Discard, &errs, hooks); code != 6 || errs.String() != "nbdcrypt: another daemon runs\n  → stop it\n" {
		t.Errorf("%d %q", code, errs.String())
	}
	var out strings.Builder
	if code := Main(context.Background(), []string{"demo"}, nil, &out, io.Discard, hooks); code != 0 || out.String() != "told\n" {
		t.Errorf("%d %q", code, out.String())
	}
}
