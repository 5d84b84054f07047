//go:build integration

package integration

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/control"
)

// wrapByOpenssl wraps key material with the line that the documentation shows, run by the real openssl.
func wrapByOpenssl(t *testing.T, dir string, material []byte) (path string) {
	t.Helper()
	in, out := filepath.Join(dir, "material.bin"), filepath.Join(dir, "material.wrapped")
	writeFile(t, in, material)
	tool(t, "openssl", "pkeyutl", "-encrypt", "-pubin", "-inkey", filepath.Join(dir, "wrapping-key.pem"), "-pkeyopt", "rsa_padding_mode:oaep",
		"-pkeyopt", "rsa_oaep_md:sha256", "-in", in, "-out", out)
	return out
}

// TestRuleB7_MaterialWrappedByOpenssl: material that openssl wraps comes in; deleted, its disk does not attach, until the same comes back.
func TestRuleB7_MaterialWrappedByOpenssl(t *testing.T) {
	t.Parallel()
	d, dir := startDaemon(t), filepath.Join(tempDir(t), "import")
	d.do("key", "create", "mine", "--origin", "imported")
	if e := d.refused(4, "disk", "create", "vol", "--size=64M", "--key=mine"); !strings.Contains(e.Message, "Pending import") {
		t.Errorf("the refusal does not name the state: %q", e.Message)
	}
	d.do("key", "import", "mine", "--prepare", dir)
	token := filepath.Join(dir, "import-token")
	material := noise("material", 32)
	d.do("key", "import", "mine", "--token", token, "--material", wrapByOpenssl(t, dir, material))
	d.create("vol", "64M", "--key=mine")
	c := dial(t, d.attach("vol"))
	write(t, c, noise("vol", 1<<20), 48<<20+777)
	check(t, c.Flush())
	for _, needle := range [][]byte{material, []byte(hex.EncodeToString(material))} {
		for _, path := range files(t, d.state, d.pool, d.run, filepath.Dir(d.root), d.log) {
			if b, err := os.ReadFile(path); err == nil && bytes.Contains(b, needle) {
				t.Errorf("the key material stands in %s", path)
			}
		}
	}
	d.refused(9, "key", "delete-material", "mine")
	d.do("key", "delete-material", "mine", "--yes")
	d.holdsNoise(get[control.Disk](d, "disk", "show", "vol").Attachments[0].URI)
	d.do("detach", "vol", "--yes")
	for range 2 {
		if e := d.refused(4, "attach", "vol"); !strings.Contains(e.Message, "Pending import") {
			t.Errorf("the refusal does not name the state: %q", e.Message)
		}
		d.stop()
		d.start()
	}
	if e := d.refused(4, "key", "import", "mine", "--token", token, "--material", wrapByOpenssl(t, dir, noise("other", 32))); !strings.Contains(e.Message, "only the same") {
		t.Errorf("other bytes: %q", e.Message)
	}
	d.refused(2, "key", "import", "mine", "--token", token, "--material", wrapByOpenssl(t, dir, material[:31]))
	d.do("key", "import", "mine", "--token", token, "--material", wrapByOpenssl(t, dir, material))
	d.holdsNoise(d.attach("vol"))
	d.checkClean()
}

// TestRuleC5_RewrapUnderLoad: a disk changes its key again and again while a load runs; killed in the middle of both, the daemon comes back with the
// disk under one of the keys, every acknowledged write there, and not a byte of ciphertext changed by it.
func TestRuleC5_RewrapUnderLoad(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.do("key", "create", "a")
	d.do("key", "create", "b")
	d.create("vol", "64M", "--key=a")
	l := newLoad(d.show("vol").SectorSize)
	c := dial(t, d.attach("vol"))
	write(t, c, noise("vol", 1<<20), 48<<20)
	check(t, c.Flush())
	ciphertext := func() []byte { return readFile(t, d.show("vol").Layers[0].Segments[0])[48<<20 : 49<<20] }
	before := ciphertext()
	d.do("detach", "vol")
	for round := range 4 {
		uri := d.attach("vol")
		wait := l.start(t, uri)
		var done atomic.Int64
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for i := 0; ; i++ {
				for _, args := range [][]string{{"key", "rotate", "b"}, {"disk", "rewrap", "vol", "--key=b"}, {"key", "rotate", "b"}, {"key", "rewrap", "b"},
					{"key", "rewrap", "b", "--to=a"}} {
					if d.command(args...).Run() != nil {
						return
					}
					done.Add(1)
				}
			}
		}()
		goal := int64(6 + 3*round)
		waitFor(t, "the keys don't change", func() bool { return done.Load() >= goal })
		l.waitForFlushes(t, 4)
		d.kill()
		wait()
		<-ended
		d.start()
		l.verify(t, d.attach("vol"))
		if key := d.show("vol").Key; key.Alias != "a" && key.Alias != "b" {
			t.Errorf("the disk is under %+v", key)
		} else if uses := get[[]control.KeyUse](d, "key", "uses", key.ID); len(uses) != 1 || uses[0].Name != "vol" {
			t.Errorf("key %s is used by %+v", key.Alias, uses)
		}
		d.do("detach", "vol")
	}
	d.do("disk", "rewrap", "vol", "--key=b")
	d.do("key", "disable", "a")
	expect(t, dial(t, d.attach("vol")), noise("vol", 1<<20), 48<<20)
	if !bytes.Equal(ciphertext(), before) {
		t.Error("ciphertext changed")
	}
	d.checkClean()
}

// TestRuleB6_RotationOnItsDay: a key is rotated when its days are over, old disks go on, and new ones are under the new version.
func TestRuleB6_RotationOnItsDay(t *testing.T) {
	t.Parallel()
	d := newDaemon(t)
	var err error
	d.program, err = clocktest()
	check(t, err)
	d.env = append(d.env, "NBDCRYPT_CLOCK="+d.dir+"/clock")
	d.start()
	d.do("grant", "create")
	d.do("key", "create", "mine")
	d.do("key", "rotation", "mine", "--days=30")
	d.create("vol", "64M", "--key=mine")
	c := dial(t, d.attach("vol"))
	write(t, c, noise("vol", 1<<20), 48<<20+777)
	check(t, c.Flush())
	for round, days := range []int{20, 30} { // two steps, as a far jump of the clock would be doubted
		d.stop()
		writeFile(t, d.dir+"/clock", []byte(fmt.Sprintf("%dh", 24*days)))
		d.start()
		if round == 0 && get[control.Key](d, "key", "show", "mine").Version != 1 {
			t.Error("it was rotated too early")
		}
	}
	waitFor(t, "the key is not rotated", func() bool { return get[control.Key](d, "key", "show", "mine").Version == 2 })
	d.holdsNoise(d.attach("vol"))
	d.do("detach", "vol")
	d.do("key", "rewrap", "mine")
	d.holdsNoise(d.attach("vol"))
	d.checkClean()
}

// keyMaterial has key material come and go under the load: a rotation, disks that are re-wrapped, an import, and its end.
func (h *hunt) keyMaterial() {
	h.t.Helper()
	dir := filepath.Join(tempDir(h.t), "import")
	h.do("key", "create", "theirs", "--origin", "imported")
	h.do("key", "import", "theirs", "--prepare", dir)
	material := wrapByOpenssl(h.t, dir, noise("material", 32))
	h.public = append(h.public, h.fingerprint("theirs", noise("material", 32)))
	h.do("key", "import", "theirs", "--token", filepath.Join(dir, "import-token"), "--material", material)
	h.do("key", "rotate", "mine")
	h.do("disk", "rewrap", busyDisk(0), "--key=theirs")
	h.do("key", "rewrap", "theirs", "--to=mine")
	h.do("key", "delete-material", "theirs", "--yes")
	h.memory("after key material came and went")
}

// fingerprint is what the key store keeps to tell key material from other, made as docs/keystore-format.md says.
func (d *daemon) fingerprint(key string, material []byte) []byte {
	d.t.Helper()
	_, rest, _ := strings.Cut(string(readFile(d.t, d.state+"/store")), "\nstore ")
	store, cmk := uuid.MustParse(rest[:36]), uuid.MustParse(get[control.Key](d, "key", "show", key).ID)
	var info []byte
	for _, part := range [][]byte{[]byte("nbdcrypt/v1/material"), store[:], []byte("local"), []byte("default"), cmk[:]} {
		info = append(binary.BigEndian.AppendUint32(info, uint32(len(part))), part...)
	}
	sum, err := hkdf.Key(sha256.New, material, nil, string(info), 32)
	check(d.t, err)
	return sum
}
