//go:build integration

package integration

import (
	"encoding/json"
	"os/exec"
	"strconv"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// Users that every Debian has, for the parts that are played here.
const (
	keyKeeper = 2  // bin
	dataUser  = 5  // games
	guest     = 33 // www-data
)

// as makes a command that a user runs.
func as(uid int, cmd *exec.Cmd) *exec.Cmd {
	id := strconv.Itoa(uid)
	cmd.Args = append([]string{"setpriv", "--reuid=" + id, "--regid=" + id, "--clear-groups", "--"}, cmd.Args...)
	cmd.Path = "/usr/bin/setpriv"
	return cmd
}

// by runs a command as a user, which must end with a code, and returns what it prints.
func (d *daemon) by(uid, code int, args ...string) string {
	d.t.Helper()
	r := execute(d.t, as(uid, d.command(append(args, "--json")...)))
	if r.code != code {
		d.t.Fatalf("%q by %d ends with %d, not %d: %s%s", args, uid, r.code, code, r.stdout, r.stderr)
	}
	if code != 0 {
		return r.stderr
	}
	return r.stdout
}

// reaches tells whether a user opens an export.
func (d *daemon) reaches(uid int, uri string) bool {
	d.t.Helper()
	return execute(d.t, as(uid, exec.Command("nbdinfo", uri))).code == 0
}

// Two users share a project beside default: one keeps its keys, the other uses its data, over NBD too; a guest has what a grant of a key gives, and no
// longer than it stands. All of it outlives the daemon.
func TestRuleA41_ProjectsAndTheirUsers(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("vol", "4M", "--encrypted") // of the same name, in default
	mine := d.attach("vol")
	d.do("project", "create", "shop")
	d.do("role", "grant", "bin", "security-admin", "--project=shop")
	d.do("role", "grant", strconv.Itoa(dataUser), "user", "--project=shop")
	in := func(words ...string) []string { return append(words, "--project=shop") }

	if said := d.by(dataUser, 5, in("disk", "create", "vol", "--size=8M", "--encrypted")...); !strings.Contains(said, "bin") {
		t.Errorf("who keeps the keys is not named: %s", said)
	}
	d.by(dataUser, 5, in("grant", "create")...)
	d.by(keyKeeper, 0, in("grant", "create")...)
	d.by(keyKeeper, 0, in("key", "create", "wages")...)
	d.by(dataUser, 0, in("disk", "create", "vol", "--size=8M", "--key=wages")...)
	d.by(keyKeeper, 5, in("attach", "vol")...)
	d.by(dataUser, 5, in("key", "disable", "wages")...)
	d.by(dataUser, 5, "disk", "list")

	var at control.Attached
	check(t, json.Unmarshal([]byte(d.by(dataUser, 0, in("attach", "vol")...)), &at))
	if at.Export != "shop/vol" {
		t.Errorf("the export is %q", at.Export)
	}
	if info := tool(t, "nbdinfo", at.URI); !strings.Contains(info, "export-size: 8388608") {
		t.Errorf("nbdinfo says %s", info)
	}
	for uid, want := range map[int]bool{dataUser: true, keyKeeper: false, guest: false} {
		if got := d.reaches(uid, at.URI); got != want {
			t.Errorf("user %d opens %s: %v", uid, at.URI, got)
		}
		if d.reaches(uid, mine) {
			t.Errorf("user %d opens root's disk of that name", uid)
		}
	}
	script := "h.pwrite(b'shop' * 1024, 4096); assert h.pread(4096, 4096) == b'shop' * 1024; h.shutdown()"
	if r := execute(t, as(dataUser, exec.Command("nbdsh", "-u", at.URI, "-c", script))); r.code != 0 {
		t.Errorf("data in %s: %s", at.URI, r.stderr)
	}
	d.by(dataUser, 0, in("detach", "vol")...)
	d.refused(6, "project", "delete", "shop", "--yes")

	d.by(guest, 5, in("attach", "vol")...)
	var g control.KeyGrant
	check(t, json.Unmarshal([]byte(d.by(keyKeeper, 0, in("key", "grant", "wages", "www-data", "decrypt")...)), &g))
	d.stop()
	d.start()
	check(t, json.Unmarshal([]byte(d.by(guest, 0, in("attach", "vol")...)), &at))
	if !d.reaches(guest, at.URI) || d.reaches(dataUser, at.URI) {
		t.Error("not the one opens it who has attached it, and nobody else")
	}
	d.by(guest, 5, in("disk", "delete", "vol", "--yes")...)
	d.by(guest, 0, in("detach", "vol")...)
	d.by(keyKeeper, 0, in("key", "revoke", "wages", g.ID)...)
	d.by(guest, 5, in("attach", "vol")...)
	d.by(dataUser, 0, in("attach", "vol")...)
	d.by(dataUser, 0, in("detach", "vol")...)
}
