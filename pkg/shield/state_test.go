package shield

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// tree makes a system of files: a text, or "-> " and the target of a link.
func tree(t *testing.T, files map[string]string) system {
	t.Helper()
	y := system{root: t.TempDir(), device: func(path string) (string, error) {
		if device := map[string]string{"/swap file": "8:1", "/clear": "8:1", "/safe": "253:0", "/dev/renamed": "253:0"}[path]; device != "" {
			return device, nil
		}
		return "", fs.ErrNotExist
	}}
	for name, text := range files {
		path := y.path(name)
		err := os.MkdirAll(filepath.Dir(path), 0o755)
		if target, link := strings.CutPrefix(text, "-> "); link {
			err = errors.Join(err, os.Symlink(target, path))
		} else {
			err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return y
}

// blocks is a machine: sda1 in clear, dm-0 LUKS on it, dm-1 LVM on that, dm-2 of dm-integrity, dm-3 plain dm-crypt, md0 over clear and
// encrypted, md1p1 a partition of an encrypted md1, zram in three ways, a device that lies on itself; and control groups.
var blocks = map[string]string{
	"sys/devices/sda/sda1/partition":    "1",
	"sys/class/block/sda1":              "-> ../../devices/sda/sda1",
	"sys/dev/block/8:1":                 "-> ../../devices/sda/sda1",
	"sys/devices/dm-0/dm/uuid":          "CRYPT-LUKS2-0123-swap\n",
	"sys/devices/dm-0/slaves/sda1":      "-> ../../sda/sda1",
	"sys/class/block/dm-0":              "-> ../../devices/dm-0",
	"sys/dev/block/253:0":               "-> ../../devices/dm-0",
	"sys/devices/dm-1/dm/uuid":          "LVM-abc\n",
	"sys/devices/dm-1/slaves/dm-0":      "-> ../../dm-0",
	"sys/class/block/dm-1":              "-> ../../devices/dm-1",
	"sys/devices/dm-2/dm/uuid":          "CRYPT-INTEGRITY-0123\n",
	"sys/devices/dm-2/slaves/sda1":      "-> ../../sda/sda1",
	"sys/class/block/dm-2":              "-> ../../devices/dm-2",
	"sys/devices/md0/slaves/dm-0":       "-> ../../dm-0",
	"sys/devices/md0/slaves/sda1":       "-> ../../sda/sda1",
	"sys/class/block/md0":               "-> ../../devices/md0",
	"sys/devices/md1/slaves/dm-0":       "-> ../../dm-0",
	"sys/devices/md1/slaves/dm-1":       "-> ../../dm-1",
	"sys/devices/md1/md1p1/partition":   "1",
	"sys/class/block/md1p1":             "-> ../../devices/md1/md1p1",
	"sys/devices/zram0/backing_dev":     "none\n",
	"sys/class/block/zram0":             "-> ../../devices/zram0",
	"sys/devices/zram1/backing_dev":     "/dev/sda1\n",
	"sys/class/block/zram1":             "-> ../../devices/zram1",
	"sys/devices/zram2/backing_dev":     "/dev/dm-0\n",
	"sys/class/block/zram2":             "-> ../../devices/zram2",
	"sys/devices/loop/slaves/loop":      "-> ../../loop",
	"sys/class/block/loop":              "-> ../../devices/loop",
	"sys/fs/cgroup/memory.swap.max":     "max\n",
	"sys/fs/cgroup/a/memory.swap.max":   "0\n",
	"sys/fs/cgroup/a/b/memory.swap.max": "max\n",
	"sys/fs/cgroup/c/memory.swap.max":   "1024\n",
	"proc/self/cgroup":                  "0::/c\n",
	"sys/devices/dm-3/dm/uuid":          "CRYPT-PLAIN-cryptswap\n",
	"sys/class/block/dm-3":              "-> ../../devices/dm-3",
}

func swaps(areas ...string) string {
	return "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n" + strings.Join(areas, "")
}

func partition(name string) string {
	return name + "                       partition\t8388604\t\t0\t\t-2\n"
}

func file(name string) string { return name + " file\t\t8388604\t\t0\t\t-2\n" }

func TestSwap(t *testing.T) {
	for name, c := range map[string]struct {
		swaps, cgroup string
		want          Swap
	}{
		"none":               {swaps(), "", Swap{SwapNone, []string{}}},
		"memory":             {swaps(partition("/dev/zram0")), "", Swap{SwapNone, []string{}}},
		"memory and a disk":  {swaps(partition("/dev/zram0"), partition("/dev/sda1")), "", Swap{SwapUnencrypted, []string{"/dev/sda1"}}},
		"memory over a disk": {swaps(partition("/dev/zram1")), "", Swap{SwapUnencrypted, []string{"/dev/zram1"}}},
		"memory over LUKS":   {swaps(partition("/dev/zram2")), "", Swap{SwapEncrypted, []string{"/dev/zram2"}}},
		"disk":               {swaps(partition("/dev/sda1")), "", Swap{SwapUnencrypted, []string{"/dev/sda1"}}},
		"LUKS":               {swaps(partition("/dev/dm-0")), "", Swap{SwapEncrypted, []string{"/dev/dm-0"}}},
		"LUKS, another name": {swaps(partition("/dev/renamed")), "", Swap{SwapEncrypted, []string{"/dev/renamed"}}},
		"plain dm-crypt":     {swaps(partition("/dev/dm-3")), "", Swap{SwapEncrypted, []string{"/dev/dm-3"}}},
		"LVM on LUKS":        {swaps(partition("/dev/dm-1")), "", Swap{SwapEncrypted, []string{"/dev/dm-1"}}},
		"integrity":          {swaps(partition("/dev/dm-2")), "", Swap{SwapUnencrypted, []string{"/dev/dm-2"}}},
		"RAID, half of it":   {swaps(partition("/dev/md0")), "", Swap{SwapUnencrypted, []string{"/dev/md0"}}},
		"partition of RAID":  {swaps(partition("/dev/md1p1")), "", Swap{SwapEncrypted, []string{"/dev/md1p1"}}},
		"a circle":           {swaps(partition("/dev/loop")), "", Swap{SwapUnencrypted, []string{"/dev/loop"}}},
		"unknown device":     {swaps(partition("/dev/what")), "", Swap{SwapUnencrypted, []string{"/dev/what"}}},
		"worst counts":       {swaps(partition("/dev/dm-0"), partition("/dev/sda1")), "", Swap{SwapUnencrypted, []string{"/dev/sda1"}}},
		"file":               {swaps(file(`/swap\040file`)), "", Swap{SwapUnencrypted, []string{"/swap file"}}},
		"file on LUKS":       {swaps(file("/safe")), "", Swap{SwapEncrypted, []string{"/safe"}}},
		// A file whose name is that of a device is no device.
		"file named dm-0":       {swaps(file("/mnt/dm-0")), "", Swap{SwapUnencrypted, []string{"/mnt/dm-0"}}},
		"file that is gone":     {swaps(file(`/swap\040file\040(deleted)`)), "", Swap{SwapUnencrypted, []string{"/swap file (deleted)"}}},
		"group may not":         {swaps(partition("/dev/sda1")), "0::/a\n", Swap{SwapForbidden, []string{"/dev/sda1"}}},
		"group above may not":   {swaps(partition("/dev/sda1")), "4:memory:/x\n0::/a/b\n", Swap{SwapForbidden, []string{"/dev/sda1"}}},
		"group may a little":    {swaps(partition("/dev/sda1")), "0::/c\n", Swap{SwapUnencrypted, []string{"/dev/sda1"}}},
		"group outside":         {swaps(partition("/dev/sda1")), "0::/../a\n", Swap{SwapUnencrypted, []string{"/dev/sda1"}}},
		"group of the old kind": {swaps(partition("/dev/sda1")), "4:memory:/a\n", Swap{SwapUnencrypted, []string{"/dev/sda1"}}},
	} {
		t.Run(name, func(t *testing.T) {
			y := tree(t, blocks)
			if c.cgroup == "" {
				c.cgroup = "0::/\n"
			}
			for file, text := range map[string]string{"proc/swaps": c.swaps, "proc/self/cgroup": c.cgroup} {
				if err := os.WriteFile(y.path(file), []byte(text), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if got, err := y.swap(); err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("%+v, %v, want %+v", got, err, c.want)
			}
		})
	}
}

func TestKernelWithoutSwap(t *testing.T) {
	if got, err := tree(t, nil).swap(); err != nil || got.Kind != SwapNone {
		t.Errorf("%+v, %v", got, err)
	}
}

func TestSwapsThatAreNotUnderstood(t *testing.T) {
	for _, text := range []string{swaps("/dev/sda1\n"), swaps("/dev/sda1 partition 1 2 3 4\n"), swaps("/dev/sda1 tape 1 2 3\n"), swaps("\n")} {
		if areas, err := parseSwaps(text); err == nil {
			t.Errorf("%q is %v", text, areas)
		}
	}
}

func FuzzParseSwaps(f *testing.F) {
	for _, text := range []string{swaps(), swaps(partition("/dev/sda1"), file(`/a\040b\134`)), swaps(file(`/a\04`)), swaps(file(`\777`)), "", "\n\n"} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		areas, err := parseSwaps(text)
		if err != nil && areas != nil {
			t.Error("areas and an error")
		}
		for _, a := range areas {
			if a.name == "" || (a.kind != "file" && a.kind != "partition") {
				t.Errorf("%+v", a)
			}
		}
		if strings.Count(text, "\n") > 1 && err == nil && len(areas) == 0 {
			t.Errorf("lines of %q are passed over", text)
		}
	})
}

const goodStatus = "Name:\tx\nNoNewPrivs:\t1\nSigCgt:\t00000000000044db\n"

func TestLookReadsEveryThread(t *testing.T) {
	y := tree(t, map[string]string{"proc/self/status": goodStatus, "proc/self/task/1/status": goodStatus, "proc/self/task/2/status": goodStatus,
		"proc/self/task/3/gone": "", "sys/power/disk": "[disabled]\n"})
	var s State
	if err := y.look(&s); err != nil || !s.NoNewPrivs || len(s.Signals) != 0 || s.Hibernation != HibernationImpossible {
		t.Errorf("%+v, %v", s, err)
	}
	other := strings.Replace(goodStatus, "Privs:\t1", "Privs:\t0", 1)
	if err := os.WriteFile(y.path("proc/self/task/2/status"), []byte(other), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := y.look(&s); err != nil || s.NoNewPrivs {
		t.Errorf("one thread may gain privileges: %+v, %v", s, err)
	}
	// SIGURG and a real-time signal besides.
	if err := os.WriteFile(y.path("proc/self/status"), []byte("SigCgt:\t80000000004044db\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := y.look(&s); err != nil || !reflect.DeepEqual(s.Signals, []string{"SIGURG", "signal 64"}) {
		t.Errorf("%+v, %v", s, err)
	}
}

func TestLookNeedsProc(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":    {},
		"no SigCgt":  {"proc/self/status": "Name:\tx\n", "proc/self/task/1/status": goodStatus},
		"odd SigCgt": {"proc/self/status": "SigCgt:\tzz\n", "proc/self/task/1/status": goodStatus},
		"no threads": {"proc/self/status": goodStatus},
		"odd thread": {"proc/self/status": goodStatus, "proc/self/task/1/status": "Name:\tx\n"},
	} {
		var s State
		if err := tree(t, files).look(&s); err == nil {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestHibernation(t *testing.T) {
	for want, files := range map[Hibernation][]map[string]string{
		HibernationImpossible: {{"sys/power/disk": "[disabled]\n"}, {"sys/power/state": "freeze mem\n"}},
		HibernationPossible:   {{"sys/power/disk": "[platform] shutdown reboot suspend test_resume\n"}},
		HibernationUnknown:    {{}},
	} {
		for _, f := range files {
			if got := tree(t, f).hibernation(); got != want {
				t.Errorf("%v: %q, want %q", f, got, want)
			}
		}
	}
}
