package volume_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// known is plaintext that is searched for in files.
var known = bytes.Repeat([]byte("plaintext that no file may hold. "), 1000)

func imageOf(disk, name string) volume.ImageOf {
	return volume.ImageOf{Project: "default", Disk: disk, Name: name}
}

// importImage makes an image of bytes, with holes where they are zeros.
func (r *rig) importImage(spec volume.ImageSpec, data []byte) (volume.Point, error) {
	r.t.Helper()
	spec.Project, spec.SectorSize = "default", cmp.Or(spec.SectorSize, 512)
	return r.FillImage(r.t.Context(), "import "+spec.Name, spec, func(w *volume.ImageWriter) (int64, error) {
		for off := 0; off < len(data); off += mib {
			p := data[off:min(len(data), off+mib)]
			if bytes.Equal(p, make([]byte, len(p))) {
				continue
			}
			if _, err := w.WriteAt(p, int64(off)); err != nil {
				return 0, err
			}
		}
		return int64(len(data)), nil
	})
}

func (r *rig) wantImage(name string, want []byte) {
	r.t.Helper()
	got, err := r.ReadImage(r.t.Context(), name)
	must(r.t, err)
	if !bytes.Equal(got, want) {
		r.t.Fatalf("image %s holds other bytes: %d, want %d", name, len(got), len(want))
	}
}

// wantNoPlaintext searches all files of the pool.
func (r *rig) wantNoPlaintext() {
	r.t.Helper()
	for _, path := range r.files() {
		b, err := os.ReadFile(path)
		must(r.t, err)
		if bytes.Contains(b, known[:33]) {
			r.t.Errorf("%s holds plaintext", filepath.Base(path))
		}
	}
}

// Rule A32: an image of a disk has its attribute and its key; another is refused.
func TestRuleA32_AnImageIsUnderItsDisksKey(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	r.key("other")
	r.create(volume.Spec{Project: "default", Name: "vault", Size: 4 * mib, SectorSize: 512, Encrypted: true, Key: "mine"})
	r.create(volume.Spec{Project: "default", Name: "open", Size: 4 * mib, SectorSize: 512})
	mine, err := r.keys.Key(t.Context(), "default", "mine")
	must(t, err)
	other, err := r.keys.Key(t.Context(), "default", "other")
	must(t, err)
	yes, no := true, false
	for name, of := range map[string]volume.ImageOf{
		"plain of encrypted": {Project: "default", Disk: "vault", Name: "i", Encrypted: &no},
		"another key":        {Project: "default", Disk: "vault", Name: "i", Key: other.ID},
		"encrypted of plain": {Project: "default", Disk: "open", Name: "i", Encrypted: &yes},
		"a key for plain":    {Project: "default", Disk: "open", Name: "i", Key: mine.ID},
	} {
		if _, err := r.CreateImage(t.Context(), name, of); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("%s: %v", name, err)
		}
	}
	if n := r.records("image"); n != 0 {
		t.Errorf("%d records of images that were refused", n)
	}
	i, err := r.CreateImage(t.Context(), "i", volume.ImageOf{Project: "default", Disk: "vault", Name: "i", Encrypted: &yes, Key: mine.ID})
	must(t, err)
	if i.Key == nil || i.Key.ID != mine.ID || !i.Encrypted || i.Size != 4*mib || i.DiskName != "vault" {
		t.Errorf("%+v", i)
	}
	again, err := r.CreateImage(t.Context(), "i", imageOf("vault", "i"))
	if err != nil || again.ID != i.ID {
		t.Errorf("the same request again: %s, %v", again.ID, err)
	}
	_, err = r.CreateImage(t.Context(), "second", imageOf("vault", "i"))
	wantCode(t, err, refusal.Busy)
}

// An image of an attached disk is what it held at one moment, and stays that whatever is written.
func TestAnImageUnderLoadIsOneMoment(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	begin, stop, load := make(chan struct{}), make(chan struct{}), sync.WaitGroup{}
	load.Go(func() {
		// Two counters, the second always written after the first: at no moment is it ahead, or behind by more than one.
		for n := 1; ; n++ {
			for _, at := range []int64{0, 3 * mib} {
				if _, err := a.Device.WriteAt(bytes.Repeat([]byte{byte(n)}, 4096), at); err != nil {
					t.Error(err)
				}
			}
			if n == 1 {
				close(begin)
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	<-begin
	var held [][]byte
	for _, name := range []string{"one", "two", "three"} {
		_, err := r.CreateImage(t.Context(), name, imageOf("vault", name))
		must(t, err)
		b, err := r.ReadImage(t.Context(), name)
		must(t, err)
		held = append(held, b)
		if first, second := b[0], b[3*mib]; first != second && first != second+1 {
			t.Errorf("image %s: counters %d and %d", name, first, second)
		}
	}
	close(stop)
	load.Wait()
	_, err := a.Device.WriteAt(bytes.Repeat([]byte{0xEE}, mib), 0)
	must(t, err)
	_, err = r.detach("vault")
	must(t, err)
	r.restart()
	for i, name := range []string{"one", "two", "three"} {
		r.wantImage(name, held[i])
	}
}

// Rule A33: what comes from outside is encrypted on its way in.
func TestRuleA33_AnImageOfAFile(t *testing.T) {
	r := newRig(t)
	data := make([]byte, 5*mib)
	copy(data[2*mib-100:], known)
	i, err := r.importImage(volume.ImageSpec{Name: "i", Size: int64(len(data)), Encrypted: true}, data)
	must(t, err)
	if i.Size != 5*mib || !i.Encrypted || i.Key == nil || i.Status != volume.Available || i.Source == nil || i.Source.Kind != volume.FileKind {
		t.Errorf("%+v", i)
	}
	r.wantNoPlaintext()
	r.wantImage("i", data)
	r.restart()
	r.wantImage("i", data)
	_, err = r.importImage(volume.ImageSpec{Name: "plain", Size: int64(len(data))}, data)
	must(t, err)
	r.wantImage("plain", data)
}

// The size of a pipe is known at its end, and a part of a sector has zeros behind it.
func TestAnImageWhoseSizeNobodyKnew(t *testing.T) {
	r := newRig(t)
	data := bytes.Repeat([]byte{7}, 3*mib+100)
	i, err := r.importImage(volume.ImageSpec{Name: "pipe", Encrypted: true}, data)
	must(t, err)
	if i.Size != 3*mib+512 {
		t.Errorf("%d bytes", i.Size)
	}
	r.wantImage("pipe", append(data, make([]byte, 412)...))
	_, err = r.importImage(volume.ImageSpec{Name: "odd", Size: 3*mib + 100}, data)
	must(t, err)
	r.wantImage("odd", append(data, make([]byte, 412)...))
	large, err := r.importImage(volume.ImageSpec{Name: "large", SectorSize: 4096, Encrypted: true}, data)
	if err != nil || large.Size != 3*mib+4096 || large.SectorSize != 4096 {
		t.Errorf("%+v, %v", large, err)
	}
	r.wantImage("large", append(data, make([]byte, 3996)...))
	_, err = r.importImage(volume.ImageSpec{Name: "none", SectorSize: 1024}, data)
	wantCode(t, err, refusal.Usage)
	_, err = r.importImage(volume.ImageSpec{Name: "none"}, nil)
	wantCode(t, err, refusal.Usage)
}

// What does not come to its end leaves nothing: no record, no file, no name.
func TestAnImageThatBreaksOffLeavesNothing(t *testing.T) {
	r := newRig(t)
	broken := errors.New("broken off")
	for name, fill := range map[string]func(*volume.ImageWriter) (int64, error){
		"at once": func(*volume.ImageWriter) (int64, error) { return 0, broken },
		"in its middle": func(w *volume.ImageWriter) (int64, error) {
			_, err := w.WriteAt(known, 0)
			return 0, errors.Join(err, broken)
		},
		"shorter":      func(*volume.ImageWriter) (int64, error) { return mib, nil },
		"past its end": func(w *volume.ImageWriter) (int64, error) { _, err := w.WriteAt(known, 2*mib-5); return 2 * mib, err },
	} {
		_, err := r.FillImage(t.Context(), name, volume.ImageSpec{Project: "default", Name: "i", Size: 2 * mib, SectorSize: 512, Encrypted: true}, fill)
		if err == nil {
			t.Errorf("%s: it was taken for whole", name)
		}
		for _, prefix := range []string{"image", "layer/", "dek/image/", "uses/", "ref/", "doomed/"} {
			if n := r.records(prefix); n != 0 {
				t.Errorf("%s: %d records %s are left", name, n, prefix)
			}
		}
		if left := r.files(); len(left) != 0 {
			t.Errorf("%s: %q are left", name, left)
		}
	}
	_, err := r.FillImage(t.Context(), "refused", volume.ImageSpec{Project: "default", Name: "i", Size: mib, SectorSize: 512, Encrypted: true, Key: "none"},
		func(*volume.ImageWriter) (int64, error) { t.Error("it was begun under no key"); return 0, nil })
	wantCode(t, err, refusal.NotFound)
}

// A daemon that ends in the middle leaves nothing behind its next start.
func TestAnImageThatIsCutOffIsGoneAfterAStart(t *testing.T) {
	r := newRig(t)
	ctx, cut := context.WithCancel(t.Context())
	_, err := r.FillImage(ctx, "cut", volume.ImageSpec{Project: "default", Name: "i", Size: 2 * mib, SectorSize: 512, Encrypted: true},
		func(w *volume.ImageWriter) (int64, error) {
			if _, err := w.WriteAt(known, 0); err != nil {
				return 0, err
			}
			r.restart() // over the same catalog and pool, as after a kill
			cut()
			return 2 * mib, nil
		})
	if err == nil {
		t.Error("an image that a start has removed was taken for whole")
	}
	if n, left := r.records("image"), r.files(); n != 0 || len(left) != 0 {
		t.Errorf("%d records, files %q", n, left)
	}
}

// Rules C4 and D5: a copy is under another key, or plain, and holds the same; the first one is as it was.
func TestRuleC4_ImagesAreCopiedUnderAnotherKey(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	r.key("other")
	data := append(append(make([]byte, 3*mib), known...), make([]byte, 2*mib)...)
	data = append(data, make([]byte, 512-len(data)%512)...)
	first, err := r.importImage(volume.ImageSpec{Name: "first", Size: int64(len(data)), Encrypted: true, Key: "mine"}, data)
	must(t, err)
	copied := func(name string, encrypted bool, key string) volume.Point {
		t.Helper()
		i, err := r.CopyImage(t.Context(), "copy "+name, "default", "first", volume.ImageSpec{Project: "default", Name: name, Encrypted: encrypted, Key: key}, volume.Work{})
		must(t, err)
		if i.Source == nil || i.Source.Name != "first" || i.Source.Kind != volume.ImageKind || i.Source.ID.String() != first.ID {
			t.Errorf("%+v", i.Source)
		}
		return i
	}
	second := copied("second", true, "other")
	r.wantNoPlaintext()
	if second.Key.ID == first.Key.ID {
		t.Error("the copy is under the first one's key")
	}
	if plain := copied("plain", false, ""); plain.Encrypted || plain.Key != nil {
		t.Errorf("%+v", plain)
	}
	_, err = r.keys.Disable(t.Context(), "disable", "default", "mine")
	must(t, err)
	r.wantImage("second", data)
	r.wantImage("plain", data)
	// Rule A36: the first one can't be used while its key can't.
	_, err = r.CopyImage(t.Context(), "copy again", "default", "first", volume.ImageSpec{Project: "default", Name: "third", Encrypted: true, Key: "other"}, volume.Work{})
	wantCode(t, err, refusal.KeyForbids)
	_, err = r.keys.Enable(t.Context(), "enable", "default", "mine")
	must(t, err)
	r.wantImage("first", data)
}

// An image is deleted without its key, and its bytes with it.
func TestDeleteImage(t *testing.T) {
	r := newRig(t)
	r.key("mine")
	data := append(known, make([]byte, 512-len(known)%512)...)
	_, err := r.importImage(volume.ImageSpec{Name: "i", Size: int64(len(data)), Encrypted: true, Key: "mine"}, data)
	must(t, err)
	_, err = r.keys.Disable(t.Context(), "disable", "default", "mine")
	must(t, err)
	_, err = r.DeleteImage(t.Context(), "delete", "default", "i")
	must(t, err)
	for _, prefix := range []string{"image", "layer/", "dek/", "uses/", "ref/"} {
		if n := r.records(prefix); n != 0 {
			t.Errorf("%d records %s are left", n, prefix)
		}
	}
	if left := r.files(); len(left) != 0 {
		t.Errorf("%q are left", left)
	}
	_, err = r.DeleteImage(t.Context(), "again", "default", "i")
	wantCode(t, err, refusal.NotFound)
}
