//go:build integration

package integration

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// secretText is what is searched for in files.
var secretText = []byte("a line of text that no file may hold\n")

// source writes a raw image of 24 MiB and 512 bytes into dir: text and noise here and there, holes between, something at the very end.
func source(t *testing.T, dir string) (path string) {
	t.Helper()
	path = dir + "/source.raw"
	f, err := os.Create(path)
	check(t, err)
	defer f.Close()
	for _, at := range []int64{0, 1<<20 + 4096, 9<<20 - 777, 24<<20 - 10000} {
		_, err := f.WriteAt(bytes.Repeat(secretText, 100), at)
		check(t, err)
	}
	_, err = f.WriteAt(noise("image", 3<<20), 15<<20)
	check(t, err)
	_, err = f.WriteAt([]byte("the end"), 24<<20+505)
	check(t, err)
	return path
}

// wantNoText searches everything that the daemon and the command line can have written.
func (d *daemon) wantNoText(dirs ...string) {
	d.t.Helper()
	for _, path := range files(d.t, append(dirs, d.state, d.pool, d.run, filepath.Dir(d.root))...) {
		if bytes.Contains(readFile(d.t, path), secretText) {
			d.t.Errorf("%s holds plaintext", path)
		}
	}
}

// wantSame has QEMU compare a disk with the file that it comes from.
func (d *daemon) wantSame(disk, format, path string) {
	d.t.Helper()
	tool(d.t, "qemu-img", "compare", "-f", "raw", "-F", format, d.attach(disk, "--read-only"), path)
	d.do("detach", disk)
}

// Rule A33: images of all formats come in encrypted, hold what is in the file byte for byte, and leave no plaintext in any file, neither
// of the daemon nor of the command, nor in the directory for temporary files. Holes stay holes.
func TestRuleA33_FilesOfAllFormats(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	dir, temp := tempDir(t), tempDir(t)
	d.env = append(d.env, "TMPDIR="+temp)
	raw := source(t, dir)
	writeFile(t, temp+"/there", []byte("so that there is a file to search"))
	for name, options := range map[string][]string{
		"raw": nil, "qcow2": {"-O", "qcow2"}, "deflate": {"-c", "-O", "qcow2"},
		"zstd": {"-c", "-O", "qcow2", "-o", "compression_type=zstd"}, "subclusters": {"-O", "qcow2", "-o", "extended_l2=on,cluster_size=128k"},
		"vmdk": {"-O", "vmdk"}, "stream": {"-O", "vmdk", "-o", "subformat=streamOptimized"}, "vhdx": {"-O", "vhdx"}, "vdi": {"-O", "vdi"},
	} {
		path, format := raw, "raw"
		if options != nil {
			path = dir + "/" + name
			tool(t, "qemu-img", append(append([]string{"convert"}, options...), raw, path)...)
			format = strings.Trim(tool(t, "sh", "-c", "qemu-img info --output=json "+path+" | sed -n 's/^    \"format\": //p'"), "\", \n")
		}
		i := get[control.Image](d, "image", "create", name, "--from-file", path, "--encrypted")
		if !i.Encrypted || i.Key == nil || i.Size != 24<<20+512 {
			t.Errorf("%s: %+v", name, i)
		}
		disk := get[control.Disk](d, "disk", "create", "of-"+name, "--from-image", name)
		if disk.Source == nil || disk.Source.Name != name || disk.Key == nil || disk.Key.ID != i.Key.ID {
			t.Errorf("%+v", disk)
		}
		d.wantSame("of-"+name, format, path)
		var st syscall.Stat_t
		check(t, syscall.Stat(disk.Layers[1].Segments[0], &st))
		if written := st.Blocks * 512; written > 4<<20 {
			t.Errorf("%s: %d bytes are written of 3 MiB that are no holes", name, written)
		}
	}
	d.wantNoText(temp)
	if left, err := os.ReadDir(temp); err != nil || len(left) != 1 {
		t.Errorf("left in the directory for temporary files: %v, %v", left, err)
	}
	d.checkClean()
}

// A disk comes in through a pipe, and what is not whole sectors has zeros behind it.
func TestAnImageThroughAPipe(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	raw := source(t, tempDir(t))
	in, err := os.Open(raw)
	check(t, err)
	defer in.Close()
	cmd := d.command("image", "create", "piped", "--from-file", "-", "--encrypted", "--json")
	cmd.Stdin = in
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d.do("disk", "create", "of", "--from-image", "piped")
	d.wantSame("of", "raw", raw)
	d.wantNoText()
	check(t, os.Truncate(raw, 24<<20+3))
	if i := get[control.Image](d, "image", "create", "odd", "--from-file", raw, "--plain"); i.Size != 24<<20+512 {
		t.Errorf("%d bytes", i.Size)
	}
}

// What leans on other files is refused by name, and nothing that it names is opened; so is what another program has encrypted.
func TestImagesThatNameOtherFiles(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	dir := tempDir(t)
	raw := source(t, dir)
	tool(t, "qemu-img", "convert", "-O", "qcow2", raw, dir+"/base.qcow2")
	tool(t, "qemu-img", "convert", "-O", "vmdk", raw, dir+"/base.vmdk")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "base.qcow2", "-F", "qcow2", dir+"/backed.qcow2")
	tool(t, "qemu-img", "create", "-q", "-f", "vmdk", "-b", dir+"/base.vmdk", "-F", "vmdk", dir+"/backed.vmdk")
	tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-o", "data_file="+dir+"/data.raw", dir+"/outside.qcow2", "1M")
	tool(t, "qemu-img", "convert", "-O", "vmdk", "-o", "subformat=monolithicFlat", raw, dir+"/flat.vmdk")
	waitFor(t, "qemu-img makes no LUKS image", func() bool { // where the kernel counts a thread's time too coarsely it gives up
		return exec.Command("qemu-img", "create", "-q", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o", "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", dir+"/luks.qcow2", "1M").Run() == nil
	})
	for name, opened := range map[string]string{"backed.qcow2": "base.qcow2", "backed.vmdk": "base.vmdk", "outside.qcow2": "data.raw", "flat.vmdk": "flat-flat.vmdk", "luks.qcow2": ""} {
		trace := dir + "/trace"
		args := append([]string{"-f", "-e", "trace=open,openat,openat2", "-o", trace}, d.command("image", "create", "x", "--from-file", dir+"/"+name, "--encrypted", "--json").Args...)
		cmd := exec.Command("strace", args...)
		cmd.Env = d.command().Env
		if e := refusedCommand(t, int(refusal.Usage), cmd); !strings.Contains(e.Message, name) {
			t.Errorf("%+v", e)
		}
		if opened != "" && bytes.Contains(readFile(t, trace), []byte(opened)) {
			t.Errorf("%s had %s opened", name, opened)
		}
	}
	if list := get[[]control.Image](d, "image", "list"); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

// Rules A29, A32 and A36: what images have of their disks, disks of images, and all of their key.
func TestRuleA36_ImagesFollowTheirKeys(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	d.do("key", "create", "payroll")
	d.do("key", "create", "other")
	d.create("vol", "8M", "--key", "payroll")
	c := dial(t, d.attach("vol"))
	write(t, c, noise("before", 1<<20), 1<<20)
	i := get[control.Image](d, "image", "create", "golden", "--from-disk", "vol")
	write(t, c, noise("after", 1<<20), 1<<20)
	check(t, c.Disconnect())
	d.do("detach", "vol")
	if v := d.show("vol"); i.Key == nil || i.Key.ID != v.Key.ID || i.Source == nil || i.Source.Name != "vol" {
		t.Errorf("%+v", i)
	}
	for _, args := range [][]string{
		{"image", "create", "x", "--from-disk", "vol", "--plain"}, {"image", "create", "x", "--from-disk", "vol", "--key", "other"},
		{"disk", "create", "x", "--from-image", "golden", "--plain"}, {"disk", "create", "x", "--from-image", "golden", "--key", "other"},
		{"disk", "create", "x", "--from-image", "golden", "--size", "1M"},
	} {
		d.refused(int(refusal.Usage), args...)
	}
	d.do("image", "copy", "golden", "open", "--plain")
	d.refused(int(refusal.Usage), "disk", "create", "x", "--from-image", "open", "--encrypted")
	d.do("image", "copy", "golden", "moved", "--key", "other")
	d.do("key", "disable", "payroll")
	for _, args := range [][]string{{"disk", "create", "x", "--from-image", "golden"}, {"image", "copy", "golden", "x", "--plain"}} {
		if e := d.refused(int(refusal.KeyForbids), args...); !strings.Contains(e.Message, "Disabled") {
			t.Errorf("%q: %+v", args, e)
		}
	}
	for n, from := range []string{"open", "moved"} {
		name := fmt.Sprintf("of%d", n)
		d.do("disk", "create", name, "--from-image", from)
		c := dial(t, d.attach(name))
		expect(t, c, noise("before", 1<<20), 1<<20)
		check(t, c.Disconnect())
		d.do("detach", name)
	}
	d.do("key", "enable", "payroll")
	d.do("disk", "create", "back", "--from-image", "golden", "--size", "16M")
	d.do("image", "delete", "golden", "--yes")
	d.do("disk", "delete", "vol", "--yes")
	c = dial(t, d.attach("back"))
	expect(t, c, noise("before", 1<<20), 1<<20)
	check(t, c.Disconnect())
	d.checkClean()
}

// Who interrupts an upload, and what is killed in its middle, leaves nothing behind.
func TestAnUploadThatIsCutOff(t *testing.T) {
	t.Parallel()
	d := startDaemon(t)
	for _, cut := range []string{"interrupted", "killed", "no daemon"} {
		in, out, err := os.Pipe()
		check(t, err)
		cmd := d.command("image", "create", "cut", "--from-file", "-", "--encrypted")
		cmd.Stdin = in
		var said bytes.Buffer
		cmd.Stderr = &said
		check(t, cmd.Start())
		in.Close()
		_, err = out.Write(bytes.Repeat(secretText, 100000))
		check(t, err)
		waitFor(t, "the image is not begun", func() bool { return len(get[[]control.Image](d, "image", "list")) == 1 })
		time.Sleep(50 * time.Millisecond)
		switch cut {
		case "interrupted":
			check(t, cmd.Process.Signal(os.Interrupt))
		case "killed":
			check(t, cmd.Process.Kill())
		case "no daemon":
			d.kill()
			out.Close() // a sender who has nothing to send hears of it late
		}
		err = cmd.Wait()
		out.Close() // not before: it must be the cut that ends the command
		if cut == "no daemon" {
			d.start()
		}
		if err == nil || cut == "interrupted" && !strings.Contains(said.String(), "nothing of image cut is kept") {
			t.Errorf("%s: %v, %s", cut, err, said.String())
		}
		waitFor(t, "half an image is left", func() bool { return len(get[[]control.Image](d, "image", "list")) == 0 })
		waitFor(t, cut+": files are left in the pool", func() bool { return tool(t, "find", d.pool, "-type", "f") == "" })
	}
	d.wantNoText()
}
