//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// An image of an encrypted server, and a scaling configuration of it, keep its encryption, and a group hands it on: every member boots from the one image, writes its own name, and has
// data keys of its own under the image's key. Six start at once.
func TestRuleA35_A32_A22_AGroupOfAnEncryptedServer(t *testing.T) {
	t.Parallel()
	h, image := newHost(t), serverImage(t)
	h.do("key", "create", "data")
	h.do("image", "create", "system", "--from-file", image, "--key", "servers")
	h.do("server", "create", "first", "--image", "system", "--memory", "160M", "--network", "none", "--data-disk", "size=16M,plain", "--data-disk", "size=16M,key=data")
	imageOfServer(t, h)
	wantConfig(t, ask[control.ScalingConfig](h, "scaling", "config", "create", "config", "--from-server", "first"))
	group := ask[control.ScalingGroup](h, "scaling", "group", "create", "web", "--config", "config", "--min", "3", "--max", "20")
	names := members(group)
	if len(names) != 3 {
		t.Fatalf("the group has %q", names)
	}
	consoles := startAll(t, h, names)
	for i, name := range names {
		consoles[i].run(fmt.Sprintf("echo 'I am %[1]s' >/name; sync; yes 'words of %[1]s' | head -c 65536 | tee /dev/vdb >/dev/vdc; sync", name))
	}
	ownKeys(t, h, names)
	h.do(append([]string{"server", "stop", "--force"}, names[1:]...)...)
	keyGoesWithDaemon(t, h, names[0], consoles[0])
	for i, name := range names {
		consoles[i].gone()
		h.detached(name)
		if found := containing(t, h.dir+"/state", "I am "+name); found != "" {
			t.Errorf("what %s wrote is in %s", name, found)
		}
	}
	unusableKey(t, h)
	group = ask[control.ScalingGroup](h, "scaling", "group", "scale", "web", "6", "--start")
	if len(group.Made) != 3 {
		t.Errorf("scaling from 3 to 6 made %q", group.Made)
	}
	h.run(group.Made...)
	consoles = startAll(t, h, names) // six boot at once
	for _, name := range group.Made {
		openConsole(t, h.dir, name).booted(name)
	}
	// What a member wrote is where it wrote it.
	for i, name := range names {
		if said := consoles[i].run("cat /name; head -c 14 /dev/vdc"); said != "I am "+name+"\nwords of "+name {
			t.Errorf("member %s reads %q", name, said)
		}
	}
	h.do("scaling", "group", "delete", "web", "--yes")
	if left := ask[[]control.Server](h, "server", "list"); len(left) != 1 || left[0].Name != "first" {
		t.Errorf("after the group's end there are %+v", left)
	}
}

// members are the names of a group's servers.
func members(g control.ScalingGroup) (names []string) {
	for _, m := range g.Members {
		names = append(names, m.Name)
	}
	return names
}

// startAll starts servers at once, which won't wait long for a daemon that goes, and waits until all have booted.
func startAll(t *testing.T, h *host, names []string) (consoles []*console) {
	t.Helper()
	h.do(append([]string{"server", "start", "--reconnect", "5s"}, names...)...)
	h.run(names...)
	for _, name := range names {
		consoles = append(consoles, openConsole(t, h.dir, name))
	}
	for i, name := range names {
		consoles[i].booted(name)
	}
	return consoles
}

// wantConfig wants a configuration's disks as the server has them.
func wantConfig(t *testing.T, c control.ScalingConfig) {
	t.Helper()
	var got []string
	for _, d := range c.Disks {
		text := fmt.Sprint(d.Role, " ", d.Size>>20, "M")
		if d.Encrypted && d.Key != nil {
			text += " " + d.Key.Alias
		}
		got = append(got, text)
	}
	if text := strings.Join(got, ", "); text != "system 65M servers, data 16M, data 16M data" {
		t.Errorf("the configuration has the disks %s", text)
	}
}

// ownKeys wants each member's system disk to have a data key of its own above what all share, all under the image's key.
func ownKeys(t *testing.T, h *host, names []string) {
	t.Helper()
	layers, keys, shared := map[string]bool{}, map[string]bool{}, map[string]bool{}
	for _, name := range names {
		s := h.server(name)
		wantDisks(t, s.Disks, "system servers", "data", "data data")
		for _, disk := range []control.ServerDisk{s.Disks[0], s.Disks[2]} {
			opened := ask[control.Escrow](h, "disk", "escrow", disk.Name, "--yes")
			layers[opened.Layers[0].ID], keys[opened.Layers[0].Key] = true, true
			for _, below := range opened.Layers[1:] {
				shared[below.Key] = true
			}
		}
	}
	if len(layers) != 2*len(names) || len(keys) != 2*len(names) {
		t.Errorf("%d servers with two encrypted disks each have %d layers and %d data keys of their own", len(names), len(layers), len(keys))
	}
	for key := range shared {
		if keys[key] {
			t.Error("a member writes under a data key that others have")
		}
	}
	if len(shared) == 0 {
		t.Error("the members share nothing: they are copies")
	}
}

// keyGoesWithDaemon disables the key of a server that runs: it goes on, but not past the daemon's end.
func keyGoesWithDaemon(t *testing.T, h *host, name string, c *console) {
	t.Helper()
	h.do("key", "disable", "data")
	c.run("dd if=/dev/vdc of=/dev/null bs=1M count=1 iflag=direct")
	h.kill()
	h.serve()
	c.gone()
	h.stopped(name)
	h.refused(4, []string{name + "-data-2", "data", "Disabled"}, "server", "start", name)
	h.do("key", "enable", "data")
}

// unusableKey tries to scale, and to make another group, with a key disabled that a member would need.
func unusableKey(t *testing.T, h *host) {
	t.Helper()
	for _, key := range []string{"servers", "data"} {
		h.do("key", "disable", key)
		h.refused(4, []string{key, "Disabled"}, "scaling", "group", "scale", "web", "4")
		h.refused(4, []string{key, "Disabled"}, "scaling", "group", "create", "other", "--config", "config", "--min", "1", "--max", "2")
		h.do("key", "enable", key)
	}
	if group := ask[control.ScalingGroup](h, "scaling", "group", "show", "web"); group.Size != 3 || len(group.Members) != 3 {
		t.Errorf("after a scaling that was refused the group has %+v", group)
	}
}

func imageOfServer(t *testing.T, h *host) {
	t.Helper()
	h.refused(2, []string{"first"}, "image", "create", "golden", "--from-server", "first", "--plain")
	h.refused(2, []string{"first"}, "image", "create", "golden", "--from-server", "first", "--key", "data")
	golden := ask[control.Image](h, "image", "create", "golden", "--from-server", "first")
	if !golden.Encrypted || golden.Key == nil || golden.Key.Alias != "servers" {
		t.Errorf("an image of an encrypted server is %+v", golden)
	}
}
