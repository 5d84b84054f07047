//go:build integration

package integration

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// The grant, as who makes servers meets it: without it a server with an encrypted disk is refused, by all three ways there are, and told whom to ask; a plain one is not. After it everybody in
// the project may have one, also after a restart, and nobody in another project or region.
func TestRuleA37_A38_A39_A40_A41_A42_ServersNeedTheGrant(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	d.start()
	file := source(t, d.dir)
	for _, project := range []string{"shop", "lab"} {
		d.do("project", "create", project)
		d.do("role", "grant", "bin", "security-admin", "--project="+project)
		for _, uid := range []int{dataUser, guest} {
			d.do("role", "grant", strconv.Itoa(uid), "user", "--project="+project)
		}
		d.do("image", "create", "base", "--from-file", file, "--plain", "--project="+project)
	}
	in := func(project string, words ...string) []string { return append(words, "--project="+project) }
	server := func(project, name string, words ...string) []string {
		return in(project, append([]string{"server", "create", name, "--image=base"}, words...)...)
	}
	refused := func(project string, uid int) {
		t.Helper()
		for _, words := range [][]string{
			server(project, "web", "--encrypted"), server(project, "web", "--data-disk=size=1M,plain", "--data-disk=size=1M,encrypted"),
			in(project, "scaling", "config", "create", "refused", "--from-image=base", "--data-disk=size=1M,encrypted"),
		} {
			if said := d.by(uid, 5, words...); !strings.Contains(said, "not granted") || !strings.Contains(said, "bin") {
				t.Errorf("%q does not say that rights are not granted and who grants them: %s", words, said)
			}
		}
		var disks []control.Disk
		check(t, json.Unmarshal([]byte(d.by(uid, 0, in(project, "disk", "list")...)), &disks))
		for _, disk := range disks {
			if strings.HasPrefix(disk.Name, "web-") {
				t.Errorf("a server that was refused has left %s", disk.Name)
			}
		}
	}
	refused("shop", dataUser)
	d.by(dataUser, 0, server("shop", "plain", "--data-disk=size=1M,plain")...)
	d.by(dataUser, 5, in("shop", "grant", "create")...)
	d.by(keyKeeper, 0, in("shop", "grant", "create")...)
	d.by(keyKeeper, 5, server("shop", "theirs", "--encrypted")...) // who keeps keys uses no data
	d.by(dataUser, 0, server("shop", "first", "--encrypted", "--data-disk=size=1M,encrypted")...)
	d.by(guest, 0, server("shop", "second", "--encrypted")...)
	refused("lab", guest)
	d.stop()
	d.start()
	d.by(guest, 0, server("shop", "third", "--data-disk=size=1M,encrypted")...)
	d.by(guest, 0, in("shop", "scaling", "config", "create", "config", "--from-server=first")...)
	d.by(guest, 0, in("shop", "scaling", "group", "create", "group", "--config=config", "--min=1", "--max=2")...)
	refused("lab", guest)
	d.stop()
	d.flags = append(d.flags, "--region", "elsewhere")
	d.start()
	refused("shop", dataUser)
}

// Of a plain image a system disk is plain or encrypted as it is asked for, and as the project does by default; each holds the image's data, and the encrypted ones have it in no file.
func TestRuleA25_C1_ServersOfAPlainImage(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	file := source(t, d.dir)
	d.do("key", "create", "own")
	d.do("image", "create", "base", "--from-file", file, "--plain")
	server := func(name, key string, words ...string) {
		t.Helper()
		s := get[control.Server](d, append([]string{"server", "create", name, "--image=base"}, words...)...)
		disk := s.Disks[0]
		if got := disk.Key; disk.Encrypted != (key != "") || (got != nil) != (key != "") || got != nil && got.Alias != key {
			t.Errorf("the system disk of %s is %+v, not under %q", name, disk, key)
		}
		d.wantSame(disk.Name, "raw", file)
	}
	server("plain", "")
	server("chosen", "evs/default", "--encrypted")
	server("own", "own", "--key=own")
	d.do("project", "set", "default", "--encrypt-by-default=on")
	server("default", "evs/default")
	server("asked", "", "--plain")
}
