//go:build integration

package integration

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// TestRuleA2_ChosenAtCreate: a disk is made encrypted or plain, and disk show tells which and names the key.
func TestRuleA2_ChosenAtCreate(t *testing.T) {
	eachDisk(t, "4M", func(t *testing.T, d *daemon, name, _ string) {
		disk := d.show(name)
		if disk.Encrypted != strings.HasPrefix(name, "encrypted") || disk.Encrypted != (disk.Key != nil) {
			t.Errorf("disk show says encrypted %v, key %+v", disk.Encrypted, disk.Key)
		}
		if disk.Encrypted && disk.Key.Alias != "evs/default" {
			t.Errorf("the key is %q", disk.Key.Alias)
		}
	})
}

// TestRuleA26_EmptyDiskFreeChoice: where nothing is said an empty disk is plain; a key means encrypted; both can't be asked.
func TestRuleA26_EmptyDiskFreeChoice(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for name, want := range map[string]struct {
		flags     []string
		encrypted bool
	}{
		"unsaid": {nil, false}, "plain": {[]string{"--plain"}, false}, "encrypted": {[]string{"--encrypted"}, true},
		"by-key": {[]string{"--key=evs/default"}, true},
	} {
		if disk := d.create(name, "1M", want.flags...); disk.Encrypted != want.encrypted {
			t.Errorf("%s: encrypted %v", name, disk.Encrypted)
		}
	}
	d.refused(2, "disk", "create", "both", "--size=1M", "--plain", "--encrypted")
	d.refused(2, "disk", "create", "plain-key", "--size=1M", "--plain", "--key=evs/default")
}

// TestRuleA3_CantChangeAfterwards: no command changes it, a disk can't be made over another, and its file is not touched.
func TestRuleA3_CantChangeAfterwards(t *testing.T) {
	eachDisk(t, "4M", func(t *testing.T, d *daemon, name, uri string) {
		write(t, dial(t, uri), marker, 0)
		d.do("detach", name)
		before, segment := d.show(name), d.show(name).Layers[0].Segments[0]
		content := readFile(t, segment)
		other := map[bool]string{true: "--plain", false: "--encrypted"}[before.Encrypted]
		d.refused(6, "disk", "create", name, "--size=4M", other)
		d.refused(2, "disk", "extend", name, "--size=8M", other)
		d.refused(2, "attach", name, other)
		for _, verb := range []string{"encrypt", "decrypt", "set", "update", "modify"} {
			d.refused(2, "disk", verb, name)
		}
		after := d.show(name)
		if a, b := asJSON(t, before), asJSON(t, after); a != b {
			t.Errorf("disk show said %s, and says now %s", a, b)
		}
		if !bytes.Equal(readFile(t, segment), content) {
			t.Error("the segment file was touched")
		}
	})
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	check(t, err)
	return string(b)
}

// TestRuleC11_ExactSize: a disk has the size that was asked for, to the sector, in every place that tells it.
func TestRuleC11_ExactSize(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for name, disk := range map[string]struct {
		ask   string
		want  int64
		flags []string
	}{
		"ten-gig":       {"10G", 10 << 30, []string{"--encrypted"}},
		"ten-gig-plain": {"10G", 10 << 30, []string{"--plain"}},
		"sectors":       {"512000", 1000 * 512, []string{"--encrypted"}},
		"odd":           {"1537", 0, []string{"--encrypted"}},
		"one":           {"512", 512, []string{"--encrypted"}},
		"one-4096":      {"4096", 4096, []string{"--encrypted", "--sector-size=4096"}},
		"blocks":        {"4100096", 1001 * 4096, []string{"--plain", "--sector-size=4096"}},
	} {
		if disk.want == 0 {
			d.refused(2, append([]string{"disk", "create", name, "--size", disk.ask}, disk.flags...)...)
			continue
		}
		if made := d.create(name, disk.ask, disk.flags...); made.Size != disk.want {
			t.Errorf("%s: disk show says %d, not %d", name, made.Size, disk.want)
		}
		uri := d.attach(name)
		if got := strings.TrimSpace(tool(t, "nbdinfo", "--size", uri)); got != fmt.Sprint(disk.want) {
			t.Errorf("%s: nbdinfo says %s, not %d", name, got, disk.want)
		}
		c := dial(t, uri)
		last := noise(name, int(d.show(name).SectorSize))
		write(t, c, last, disk.want-int64(len(last)))
		if _, err := c.WriteAt([]byte{1}, disk.want); err == nil {
			t.Errorf("%s: a write past the end was taken", name)
		}
		check(t, c.Flush())
		d.do("detach", name)
		expect(t, dial(t, d.attach(name)), last, disk.want-int64(len(last)))
	}
	d.checkClean()
}

// TestRuleC12_DeletedWithoutItsKey: a disk whose key can't be used can still be deleted, files and all.
func TestRuleC12_DeletedWithoutItsKey(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.do("key", "create", "mine")
	disk := d.create("vol", "4M", "--key=mine")
	d.do("key", "disable", "mine")
	d.refused(9, "disk", "delete", "vol")
	d.do("disk", "delete", "vol", "--yes")
	d.refused(3, "disk", "show", "vol")
	if _, err := os.Stat(disk.Layers[0].Segments[0]); !os.IsNotExist(err) {
		t.Errorf("the segment is still there: %v", err)
	}
	d.checkClean()
}

// TestRuleC13_BadKeyFailsAtCreate, and leaves nothing behind.
func TestRuleC13_BadKeyFailsAtCreate(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.create("other", "4M", "--encrypted")
	d.do("key", "create", "off")
	d.do("key", "disable", "off")
	before := files(t, d.pool)
	d.refused(3, "disk", "create", "vol", "--size=4M", "--key=nosuch")
	if e := d.refused(4, "disk", "create", "vol", "--size=4M", "--key=off"); !strings.Contains(e.Message, "off") ||
		!strings.Contains(e.Message, "Disabled") {
		t.Errorf("the refusal does not name key and state: %q", e.Message)
	}
	if got := get[[]control.Disk](d, "disk", "list"); len(got) != 1 {
		t.Errorf("disks: %+v", got)
	}
	if after := files(t, d.pool); !slices.Equal(before, after) {
		t.Errorf("left behind: %q", after)
	}
	d.checkClean()
}

// A name or a size that can't be is refused in words, and leaves nothing behind.
func TestBadNamesAndSizes(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, name := range []string{"", "a/b", "/", "..", ".hidden", "-x", "a b", "a\nb", "é", "\xff", strings.Repeat("x", 300)} {
		d.refused(2, "disk", "create", "--size=4M", "--plain", "--", name)
	}
	for _, size := range []string{"0", "-1", "-4M", "513", "4097", "1.5", "x", "", "2048T", "9E", "99999999999999999999"} {
		d.refused(2, "disk", "create", "vol", "--plain", "--size="+size)
	}
	d.refused(2, "disk", "create", "vol", "--plain", "--size=512", "--sector-size=4096")
	d.refused(2, "disk", "create", "vol", "--plain", "--size=4M", "--sector-size=1024")
	d.refused(2, "disk", "create", "vol", "--plain", "--encrypted", "--size=4M")
	if got := d.do("disk", "list", "--json"); strings.TrimSpace(got) != "[]" {
		t.Errorf("disks: %s", got)
	}
	// A program can't hand a NUL to another; the API can be sent one.
	for _, name := range []string{`a\u0000b`, `\u0000`} {
		body := `{"name":"` + name + `","size":4194304,"encrypted":false}`
		out := tool(t, "python3", "-c", unixHTTP, d.run+"/control.sock", "POST", "/v1/disks", body)
		if !strings.HasPrefix(out, "400 ") || !strings.Contains(out, `"code":2`) {
			t.Errorf("the API answers %q to a name with NUL", out)
		}
	}
}

// unixHTTP sends one request over a unix socket and prints the answer.
const unixHTTP = `
import http.client, socket, sys
path, verb, route, body = sys.argv[1:]
h = http.client.HTTPConnection("localhost")
h.sock = socket.socket(socket.AF_UNIX)
h.sock.connect(path)
h.request(verb, route, body, {"Content-Type": "application/json", "X-Request-Id": "00000000-0000-4000-8000-" + "%012x" % len(body)})
r = h.getresponse()
print(r.status, r.read().decode())
`
