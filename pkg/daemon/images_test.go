package daemon

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// uploaded is an upload of so many bytes, the first of which are not zeros.
func uploaded(t *testing.T, size int64) string {
	t.Helper()
	var b bytes.Buffer
	f := control.NewFrameWriter(&b)
	if _, err := f.WriteAt([]byte("not zeros"), 0); err != nil {
		t.Fatal(err)
	}
	if err := f.End(size); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// knownText is plaintext that no file may hold.
var knownText = bytes.Repeat([]byte("known plaintext of an image, "), 100)

// sendKnown sends it at a few places of size bytes.
func sendKnown(size int64) func(*control.FrameWriter) error {
	return func(f *control.FrameWriter) error {
		for at := int64(0); at < size; at += size / 3 {
			if _, err := f.WriteAt(knownText[:min(size-at, int64(len(knownText)))], at); err != nil {
				return err
			}
		}
		return f.End(size)
	}
}

// wantNowhere searches all files below a directory.
func wantNowhere(t *testing.T, dir string, text []byte) (files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		files++
		b, err := os.ReadFile(path)
		if bytes.Contains(b, text) {
			t.Errorf("%s holds plaintext", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// runGranted is a running daemon whose project default has the rights.
func runGranted(t *testing.T) (Options, *control.Client) {
	t.Helper()
	o := options(t)
	run(t, o)
	c := client(o)
	if _, err := c.GrantCreate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return o, c
}

// Rule A33: a file is sent encrypted, and neither then nor later is any of it in a file. Rule C1: encryption by default and the project's
// default key hold for it as for disks.
func TestRuleA33_AnUploadIsInNoFile(t *testing.T) {
	o, c := runGranted(t)
	yes := true
	if _, err := c.ProjectSet(t.Context(), "default", control.ProjectSet{EncryptByDefault: &yes}); err != nil {
		t.Fatal(err)
	}
	const size = 3<<20 + 512
	image, err := c.ImageUpload(t.Context(), control.ImageUpload{Name: "golden", Size: size}, sendKnown(size))
	if err != nil || !image.Encrypted || image.Key == nil || image.Size != size || image.Source == nil || image.Source.Kind != "file" {
		t.Fatalf("%+v, %v", image, err)
	}
	if n := wantNowhere(t, filepath.Dir(o.State), knownText[:29]); n < 5 {
		t.Errorf("only %d files were searched", n)
	}
	no := false
	if plain, err := c.ImageUpload(t.Context(), control.ImageUpload{Name: "plain", Encrypted: &no}, sendKnown(size)); err != nil || plain.Encrypted || plain.Size != size {
		t.Fatalf("%+v, %v", plain, err)
	}
	list, err := c.ImageList(t.Context())
	if err != nil || len(list) != 2 || list[0].Name != "golden" || list[1].Key != nil {
		t.Errorf("%+v, %v", list, err)
	}
}

func noneLeft(t *testing.T, o Options, c *control.Client) {
	t.Helper()
	list, err := c.ImageList(t.Context())
	if left := filesIn(o); err != nil || len(list) != 0 || len(left) != 0 {
		t.Errorf("%+v and the files %q are left: %v", list, left, err)
	}
}

func filesIn(o Options) []string {
	left, _ := filepath.Glob(filepath.Join(o.Pool, "*")) // the pattern is one
	return left
}

// What breaks off, does not fit or is refused leaves nothing.
func TestAnUploadThatBreaksOff(t *testing.T) {
	o, c := runGranted(t)
	gone := errors.New("the file is gone")
	for name, send := range map[string]func(*control.FrameWriter) error{
		"sender fails": func(f *control.FrameWriter) error { _, err := f.WriteAt(knownText, 0); return errors.Join(err, gone) },
		"shorter":      func(f *control.FrameWriter) error { return f.End(512) },
		"longer": func(f *control.FrameWriter) error {
			_, err := f.WriteAt(knownText, 1<<20-1)
			return errors.Join(err, f.End(1<<20))
		},
	} {
		_, err := c.ImageUpload(t.Context(), control.ImageUpload{Name: "golden", Size: 1 << 20}, send)
		if err == nil || errors.Is(err, gone) != (name == "sender fails") {
			t.Errorf("%s: %v", name, err)
		}
		await(t, "the daemon has taken back what somebody sent who has gone", func() bool {
			list, err := c.ImageList(t.Context())
			return err == nil && len(list) == 0 && len(filesIn(o)) == 0
		})
	}
	for name, upload := range map[string]control.ImageUpload{
		"a name":        {Name: "not/a name", Size: 512},
		"a key of none": {Name: "golden", Size: 512, Key: "none"},
	} {
		_, err := c.ImageUpload(t.Context(), upload, func(f *control.FrameWriter) error { return f.End(512) })
		if code := refusal.CodeOf(err); code != refusal.Usage && code != refusal.NotFound {
			t.Errorf("%s: %v", name, err)
		}
	}
	noneLeft(t, o, c)
}

// Whoever speaks to the socket without a client of ours gets an answer, and leaves nothing.
func TestUploadsOfStrangeSenders(t *testing.T) {
	o, c := runGranted(t)
	const chunked = "Transfer-Encoding: chunked\r\n\r\n"
	for name, sent := range map[string]string{
		"no frames":  chunked + "5\r\nhello\r\n0\r\n\r\n",
		"nothing":    "Content-Length: 0\r\n\r\n",
		"not chunks": chunked + "nonsense\r\n",
		"text":       "Content-Length: 20\r\n\r\n{\"name\":\"an image\"} ",
	} {
		conn := hold(t, o, "POST /v1/image-uploads?name=golden HTTP/1.1\r\nHost: d\r\n"+sent)
		answer := make([]byte, 4096)
		n, err := conn.Read(answer)
		if err != nil || !bytes.Contains(answer[:n], []byte("the upload ")) {
			t.Errorf("%s: %v, %s", name, err, answer[:n])
		}
		conn.Close()
	}
	noneLeft(t, o, c)
}

// A sender who sends nothing keeps neither others from making something, nor the daemon from ending.
func TestASlowUploadKeepsNobodyWaiting(t *testing.T) {
	o := options(t)
	stop := run(t, o)
	c := client(o)
	if _, err := c.ProjectCreate(t.Context(), "shop"); err != nil {
		t.Fatal(err)
	}
	begun, hold, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	t.Cleanup(func() { close(hold) })
	go func() {
		_, err := c.In("shop").ImageUpload(t.Context(), control.ImageUpload{Name: "golden", Size: 1 << 20}, func(f *control.FrameWriter) error {
			_, err := f.WriteAt(knownText, 0)
			close(begun)
			<-hold
			return err
		})
		ended <- err
	}()
	<-begun
	var err error
	for range 3000 {
		list, _ := c.In("shop").ImageList(t.Context())
		if len(list) == 1 {
			break
		}
		time.Sleep(10 * time.Millisecond)
	}
	if err = c.ProjectDelete(t.Context(), "shop", true); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("the project was deleted under an upload: %v", err)
	}
	if _, err = c.DiskCreate(t.Context(), control.DiskCreate{Name: "vault", Size: 1 << 20}); err != nil {
		t.Error(err)
	}
	if err = c.In("shop").ImageDelete(t.Context(), "golden", true); refusal.CodeOf(err) != refusal.Busy {
		t.Errorf("half an image was deleted under its upload: %v", err)
	}
	at := time.Now()
	if err := stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(at); took > 10*time.Second {
		t.Errorf("the end took %v", took)
	}
	if err := <-ended; err == nil {
		t.Error("half an upload was taken for whole")
	}
	run(t, o)
	if list, err := c.In("shop").ImageList(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// Rule D5: that a copy is plain stands in the log, with the key that it was under.
func TestRuleD5_APlainCopyIsRecorded(t *testing.T) {
	d := start(t)
	root := nbd.Peer{}
	for _, c := range []struct{ route, body string }{
		{control.RouteKeyCreate, `{"alias":"mine"}`}, {control.RouteKeyCreate, `{"alias":"other"}`},
		{control.RouteImageUpload + "?name=golden&key=mine", uploaded(t, 4096)},
	} {
		must(t, d, c.route, c.body)
	}
	mine, err := d.keys.Key(t.Context(), "default", "mine")
	if err != nil {
		t.Fatal(err)
	}
	other, err := d.keys.Key(t.Context(), "default", "other")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ body, resource, key string }{
		{`{"name":"bare","encrypted":false}`, "golden bare as plain", mine.ID}, {`{"name":"moved","key":"other"}`, "golden moved under other", other.ID},
		{`{"name":"same"}`, "golden same under mine", mine.ID},
	} {
		_, body := d.call(t, "POST /v1/images/golden/copy", root, c.body)
		if job := d.awaitJob(t, body); job.State != control.JobDone {
			t.Fatalf("%s: %+v", c.body, job.Error)
		}
		found := false
		for _, rec := range d.records(t) {
			found = found || rec.Verb == "image copy" && rec.Resource == c.resource && rec.KeyID == c.key && rec.Outcome == audit.OK
		}
		if !found {
			t.Errorf("no record of %q under %s", c.resource, c.key)
		}
	}
	for _, body := range []string{`{"name":"x","encrypted":false,"key":"mine"}`, `{"name":"golden"}`, `{"name":"x","key":"none"}`} {
		status, answer := d.call(t, "POST /v1/images/golden/copy", root, body)
		if status < 300 {
			if job := d.awaitJob(t, answer); job.State == control.JobDone {
				t.Errorf("%s was copied", body)
			}
		}
	}
	if got := must(t, d, "GET /v1/images/bare", ""); !strings.Contains(got, `"kind":"image"`) || !strings.Contains(got, `"encrypted":false`) {
		t.Error(got)
	}
}
