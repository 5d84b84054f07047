package cli

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/mounts"
)

// keeperless is a disk that is connected and mounted, and whose keeper was killed.
func keeperless(t *testing.T) (*fake, *fakeMachine) {
	t.Helper()
	f, m := connected(t)
	d, _ := f.disk("d")
	m.note = fmt.Sprintf(`{"attachment":%q,"epoch":7}`, d.Attachments[0].ID)
	return f, m
}

// TestAdopt: an attach of a disk whose device has lost its keeper becomes its keeper, with the attachment that there is: nothing is attached,
// connected or mounted, and an end ends that attachment.
func TestAdopt(t *testing.T) {
	for _, flags := range []string{"--device auto", "--device /dev/nbd0 --mount /m"} {
		f, m := keeperless(t)
		before := m.config
		got := m.on(t, f, "", append([]string{"attach", "d", "--foreground", "--reconnect", "1m"}, strings.Fields(flags)...)...)
		if got.code != 0 || !strings.Contains(got.err, "/dev/nbd0 had lost its keeper, and has one again") || !strings.Contains(got.out, "device: /dev/nbd0\nmounted at: /m\n") {
			t.Errorf("%s: %+v", flags, got)
		}
		wantSteps(t, flags, m.steps, "adopt /dev/nbd0", "keep /dev/nbd0")
		if asked := f.asks(); len(asked) != 0 {
			t.Errorf("%s: asked for %q", flags, asked)
		}
		if c := m.config; c.Identifier != before.Identifier || c.Socket != before.Socket || c.Export != "d" || c.BlockSize != 4096 {
			t.Errorf("%s: adopted as %+v", flags, c)
		}
		if o := m.kept; o.At.Attachment == "" || o.At.Epoch != 7 || o.How.Mount != "/m" || o.How.Device != "/dev/nbd0" || o.Disk != "d" {
			t.Errorf("%s: kept as %+v", flags, o)
		}
	}
	f, m := keeperless(t)
	m.ends = true
	m.on(t, f, "", "attach", "d", "--foreground", "--device", "auto")
	wantSteps(t, "end", m.steps, "adopt /dev/nbd0", "unmount /m", "sync /dev/nbd0", "disconnect /dev/nbd0")
	if d, _ := f.disk("d"); len(d.Attachments) != 0 {
		t.Error("it is attached after its end")
	}
	f, m = keeperless(t)
	m.mount = nil
	m.on(t, f, "", "attach", "d", "--foreground", "--device", "auto", "--mount", "/m")
	wantSteps(t, "unmounted", m.steps, "adopt /dev/nbd0", "mount /dev/nbd0/mfalse", "keep /dev/nbd0")
}

// TestAdoptRefused: a device that stands for another attachment than there is has to go first; one in another way than it was made is not
// adopted; a keeper's is left to him.
func TestAdoptRefused(t *testing.T) {
	for name, c := range map[string]struct {
		prepare func(*fake, *fakeMachine)
		flags   string
		says    string
	}{
		"no note":       {func(_ *fake, m *fakeMachine) { m.note = "" }, "", "from an attachment of disk d that has ended"},
		"another's":     {func(_ *fake, m *fakeMachine) { m.note = `{"attachment":"x","epoch":7}` }, "", "end that with `nbdcrypt detach d`"},
		"not attached":  {func(f *fake, _ *fakeMachine) { d, _ := f.disk("d"); d.Attachments = nil }, "", "end that with `nbdcrypt detach d --force`"},
		"read-only":     {func(*fake, *fakeMachine) {}, "--read-only", "in another way"},
		"other mount":   {func(*fake, *fakeMachine) {}, "--mount /n", "in another way"},
		"other device":  {func(*fake, *fakeMachine) {}, "--device /dev/nbd3", "in another way"},
		"open for more": {func(*fake, *fakeMachine) {}, "--allow u", "in another way"},
		"other's mount": {func(_ *fake, m *fakeMachine) { m.mount = &mounts.Mounted{Dir: "/m", Source: "/dev/sda"} }, "--mount /m", "/dev/sda is mounted"},
	} {
		f, m := keeperless(t)
		c.prepare(f, m)
		m.ends = true
		got := m.on(t, f, "", append([]string{"attach", "d", "--device", "auto", "--foreground"}, strings.Fields(c.flags)...)...)
		if got.code != 6 || !strings.Contains(got.err, c.says) || slices.ContainsFunc(m.steps, func(s string) bool { return !strings.HasPrefix(s, "adopt") }) {
			t.Errorf("%s: %+v, %q", name, got, m.steps)
		}
	}
	f, m := keeperless(t)
	m.keeps = 99
	m.on(t, f, "", "attach", "d", "--device", "auto", "--foreground")
	if len(m.done("adopt")) != 0 {
		t.Errorf("kept: %q", m.steps)
	}
}

// TestLonelyDevice: disk show warns of a device without a keeper, to whoever can know; detach says that there was none.
func TestLonelyDevice(t *testing.T) {
	f, m := keeperless(t)
	if got := m.on(t, f, "", "disk", "show", "d"); !strings.Contains(got.err, "/dev/nbd0 has no keeper") || !strings.Contains(got.err, "`nbdcrypt attach d --device auto`") {
		t.Errorf("%+v", got)
	}
	m.keeps = 1
	if got := m.on(t, f, "", "disk", "show", "d"); got.err != "" {
		t.Errorf("kept: %+v", got)
	}
	if got := m.on(t, f, "", "detach", "d"); got.code != 0 || !strings.Contains(got.err, "/dev/nbd0 had lost its keeper") {
		t.Errorf("%+v", got)
	}
}
