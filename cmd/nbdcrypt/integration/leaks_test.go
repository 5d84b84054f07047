//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/kit"
)

// passphrase opens the root key.
var passphrase = []byte("nine elephants argue quietly over cold soup")

// TestRuleA12_TheLifeOfKeys looks for keys in everything that can be read of the daemon, from the first attach to its end.
func TestRuleA12_TheLifeOfKeys(t *testing.T) {
	t.Parallel()
	h := startHunt(t)
	h.do("key", "create", "mine")
	h.create("refused", "4M", "--key=mine")
	broken := h.create("broken", "4M", "--encrypted")
	h.create("unrecorded", "4M", "--encrypted")
	detach := h.load()
	h.memory("10 disks under load")
	h.core("10 disks under load", false)
	h.core("10 disks under load", true)
	h.collect()
	h.memory("10 disks under load, garbage collected")
	h.lockAndUnlock()
	h.keyMaterial()
	h.waysIn()
	detach()
	h.memory("detached")
	h.core("detached", true)

	before := h.settled().Keys
	h.refusedAttach()
	h.memory("after an attach that was refused")
	h.brokenAttach(broken)
	h.memory("after an attach that found a layer broken")
	h.unrecordedAttach()
	h.memory("after an attach that could not be recorded")
	if after := h.settled().Keys; !reflect.DeepEqual(after, before) {
		t.Errorf("key memory held %+v, and holds %+v", before, after)
	}
	h.dek(busyDisk(1))
	h.memory("after an escrow")
	h.collect()
	h.memory("at the end, garbage collected")
	h.core("at the end, garbage collected", true)
	h.end()
}

// lockAndUnlock has the root key go and come back, under the load: the second time it is a passphrase that opens it.
func (h *hunt) lockAndUnlock() {
	h.t.Helper()
	file := h.dir + "/passphrase"
	writeFile(h.t, file, passphrase)
	h.do("root", "slot", "add", "passphrase", "--passphrase-file", file)
	if !slices.ContainsFunc(h.keys(), func(k handed) bool { return bytes.Equal(k.bytes, passphrase) }) {
		h.t.Error("the passphrase was not handed out")
	}
	h.memory("after a passphrase was added")
	h.do("root", "lock")
	h.refused(10, "disk", "escrow", busyDisk(0), "--yes")
	h.memory("locked")
	h.do("root", "unlock", "--passphrase-file", file)
	h.memory("after a passphrase unlocked")
}

// waysIn has slots of the other kinds made and used, under the load, and a disk exported.
func (h *hunt) waysIn() {
	h.t.Helper()
	socket, _ := startTPM(h.t, h.dir+"/tpm")
	sheet, given := h.dir+"/kit", h.dir+"/given"
	h.do("root", "recovery", "create", "--shares", "3", "--threshold", "2", "--out", sheet)
	h.do("root", "recovery", "create", "--name", "whole")
	h.do("root", "slot", "add", "credential")
	writeFile(h.t, given, fmt.Appendf(nil, "%x", noise("given", 32)))
	h.do("root", "slot", "add", "credential", "--name", "given", "--secret-file", given)
	h.do("root", "slot", "add", "tpm2", "--tpm-device", socket)
	h.do("root", "slot", "reseal", "tpm2")
	h.memory("after slots were made")
	h.do("root", "recovery", "verify", "--kit", sheet+"-1", "--kit", sheet+"-3")
	h.do("root", "lock")
	h.do("root", "recovery", "open", "--kit", sheet+"-3", "--kit", sheet+"-2")
	check(h.t, os.Rename(h.root, h.root+".away"))
	h.do("root", "lock")
	if out := h.do("root", "unlock"); !strings.Contains(out, "by slot tpm2") {
		h.t.Errorf("it was not the TPM: %s", out)
	}
	check(h.t, os.Rename(h.root+".away", h.root))
	h.create("out", "4M", "--encrypted")
	h.do("disk", "export", "out", h.dir+"/out", "--ciphertext", "--yes")
	h.memory("after a recovery kit and the TPM opened the root key, and an export")
	lines := 0
	for _, k := range h.keys() {
		if k.paper() {
			lines += len(k.bytes) / kit.LineSize
		}
	}
	if lines != (3+1)*kit.Lines {
		h.t.Errorf("%d lines of kits were handed out", lines)
	}
}

// refusedAttach asks for a disk whose key is disabled.
func (h *hunt) refusedAttach() {
	h.t.Helper()
	h.do("key", "disable", "mine")
	h.refused(4, "attach", "refused")
}

// brokenAttach asks for a disk that lacks its data: its key is unwrapped by then.
func (h *hunt) brokenAttach(disk control.Disk) {
	h.t.Helper()
	check(h.t, os.RemoveAll(filepath.Dir(disk.Layers[0].Segments[0])))
	before := len(h.keys())
	h.refused(8, "attach", "broken")
	h.released(before)
}

// released sees that a DEK was unwrapped and destroyed meanwhile: else what went wrong did so too early.
func (h *hunt) released(since int) {
	h.t.Helper()
	for _, k := range h.keys()[since:] {
		if k.kind == "dek" && len(k.bytes) == 64 {
			return
		}
	}
	h.t.Error("no DEK was unwrapped")
}

// unrecordedAttach asks for a disk while the audit log can't be written. Its key is unwrapped and its layers are open by then.
func (h *hunt) unrecordedAttach() {
	h.t.Helper()
	failing := h.failWrites(h.state + "/audit.log")
	before := len(h.keys())
	if e := h.refused(1, "attach", "unrecorded"); !strings.Contains(e.Message, "audit") {
		h.t.Errorf("the refusal does not say what failed: %s", e.Message)
	}
	h.released(before)
	failing()
	h.attach("unrecorded")
	h.do("detach", "unrecorded")
}

// failWrites makes the daemon's writes to a file fail, as those to a broken disk do, until end is called.
func (h *hunt) failWrites(path string) (end func()) {
	h.t.Helper()
	said, err := os.Create(h.t.TempDir() + "/strace")
	check(h.t, err)
	cmd := exec.Command("strace", "-f", "-p", fmt.Sprint(h.pid()), "-P", path, "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EIO")
	cmd.Stderr = said
	check(h.t, cmd.Start())
	late := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	waitFor(h.t, "strace does not trace", func() bool { return strings.Contains(string(readFile(h.t, said.Name())), " attached") })
	return func() {
		h.t.Helper()
		late.Stop()
		check(h.t, cmd.Process.Signal(os.Interrupt))
		_ = cmd.Wait() // it ends with the signal
		if text := string(readFile(h.t, said.Name())); !strings.Contains(text, "INJECTED") {
			h.t.Errorf("no write failed; strace said:\n%s", text)
		}
	}
}

// TestRuleA13_EveryCipher does the same, shorter, for each implementation of the cipher that this machine can run.
func TestRuleA13_EveryCipher(t *testing.T) {
	t.Parallel()
	type row struct{ Impl string }
	impls := map[string]bool{}
	for _, r := range get[[]row](keytestDaemon(t), "bench", "cipher", "--rounds=1") {
		impls[r.Impl] = true
	}
	off := map[string]string{"avx512": "", "avx2": "cpu.avx512f=off", "aesni": "cpu.avx512f=off,cpu.avx2=off", "arm64": "",
		"generic": "cpu.avx512f=off,cpu.avx2=off,cpu.aes=off"}
	if runtime.GOARCH == "arm64" {
		off["generic"] = "cpu.aes=off"
	}
	for impl := range impls {
		t.Run(impl, func(t *testing.T) {
			h := startHunt(t, "GODEBUG="+off[impl])
			if active := get[[]row](h.daemon, "bench", "cipher", "--rounds=1")[0].Impl; active != impl {
				t.Fatalf("GODEBUG=%s leaves %s in use", off[impl], active)
			}
			detach := h.load()
			h.core("under load", true)
			for range 3 {
				h.memory("under load")
			}
			detach()
			h.memory("detached")
			h.collect()
			h.memory("detached, garbage collected")
			h.end()
		})
	}
}

// TestRuleA12_LockedMemory is for kernels without memfd_secret, and for those who choose so: root can read the keys that are in use,
// but a core has none, and after the detach nothing is left of a disk's key.
func TestRuleA12_LockedMemory(t *testing.T) {
	t.Parallel()
	h := &hunt{daemon: keytestDaemon(t)}
	h.flags = []string{"--key-memory=locked"}
	h.begin()
	if kind := h.status().KeyMemory.Kind; kind != "locked memory" {
		t.Fatalf("keys lie in %s", kind)
	}
	detach := h.load()
	h.keep("under load", shot{snapshot: memory(t, h.pid()), readable: true})
	h.core("under load", false)
	detach()
	detached := memory(t, h.pid())
	h.aeskeyfind("detached", detached)
	h.keep("detached", shot{snapshot: detached, only: len(h.keys())})
	h.core("detached", false)
	h.end()
}
