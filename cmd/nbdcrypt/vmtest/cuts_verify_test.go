//go:build vm

package vmtest

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/load"
	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

// verifier looks at what a power cut left, in a machine that was booted after it.
type verifier struct {
	t *testing.T
	m *machine.Machine
	load.Result
	missing []string // commands
}

// open mounts an image and starts the daemon on it; nothing there may be damaged, and what was mounted can be again.
func (v *verifier) open(im image) {
	v.t.Helper()
	mountPool(v.m, im.serial)
	serve(v.m, daemonFlags)
	v.m.Run("nbdcrypt check; nbdcrypt attach client; nbdcrypt attach device --device /dev/nbd0; nbdcrypt attach files --device /dev/nbd1 --mount /mnt")
}

// close ends all of it. The file systems are held to account too: what is in them would prove little.
func (v *verifier) close(im image, fsck string) {
	v.t.Helper()
	v.m.Run(`umount /mnt
		e2fsck -fn /dev/nbd1 2>&1
		for disk in files device client; do nbdcrypt detach $disk; done
		kill $(cat /run/daemon.pid)
		while kill -0 $(cat /run/daemon.pid) 2>/dev/null; do sleep 0.05; done
		umount /run/nbdcrypt /pool
		` + fsck + " /dev/disk/by-serial/" + im.serial + " 2>&1")
}

// hold holds what a stream went to against what was acknowledged.
func (v *verifier) hold(s stream, a load.Acks) {
	v.t.Helper()
	acks, err := json.Marshal(a)
	check(v.t, err)
	out := v.m.Run(fmt.Sprintf("guest load %s -verify '%s' %s", s.plan, acks, s.target))
	var r load.Result
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		v.t.Fatalf("%s: %v", out, err)
	}
	if r.First != "" && v.First == "" {
		v.First = s.name + ": " + r.First
	}
	v.Promised, v.Lost, v.Garbage, v.Newer = v.Promised+r.Promised, v.Lost+r.Lost, v.Garbage+r.Garbage, v.Newer+r.Newer
}

// snapshot holds the newest snapshot that was acknowledged against what had been acknowledged when it was begun.
func (v *verifier) snapshot(done []string, a load.Acks) {
	v.t.Helper()
	name := ""
	for _, command := range done {
		if number, ok := strings.CutPrefix(command, "snapshot "); ok && !slices.Contains(v.missing, command) {
			name = "s" + number
		}
	}
	if name == "" {
		return
	}
	v.m.Run("nbdcrypt disk create copy --from-snapshot " + name + "; nbdcrypt attach copy")
	v.hold(stream{name, streams[0].plan, strings.Replace(streams[0].target, "/client", "/copy", 1)}, a)
	v.m.Run("nbdcrypt detach copy")
}

// commands holds what the daemon knows against the commands that were acknowledged.
func (v *verifier) commands(done []string) {
	v.t.Helper()
	keys := byName(v, "key list", func(k control.Key) string { return k.Alias })
	disks := byName(v, "disk list", func(d control.Disk) string { return d.Name })
	snapshots := byName(v, "snapshot list", func(s control.Snapshot) string { return s.Name })
	images := byName(v, "image list", func(i control.Image) string { return i.Name })
	for _, command := range done {
		verb, n, _ := strings.Cut(command, " ")
		holds, known := map[string]bool{
			"key":      keys["k"+n].ID != "",
			"rotate":   keys["k"+n].Version == 2,
			"disable":  keys["k"+n].State == "Disabled",
			"disk":     disks["d"+n].ID != "",
			"extend":   disks["d"+n].Size == 4<<20,
			"delete":   disks["gone"+n].ID == "",
			"snapshot": snapshots["s"+n].Status == "available",
			"image":    images["i"+n].Status == "available",
		}[verb]
		if !known || !holds {
			v.missing = append(v.missing, command)
		}
	}
}

// byName is a list as the command line prints it.
func byName[T any](v *verifier, command string, name func(T) string) map[string]T {
	v.t.Helper()
	found := map[string]T{}
	for _, one := range get[[]T](v.t, v.m, command) {
		found[name(one)] = one
	}
	return found
}
