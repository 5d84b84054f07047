package attest

import (
	"os"
	"reflect"
	"strings"
	"testing"

	"nbdcrypt/pkg/secret"
)

const example = `00400000-00ae8000 r-xp 00000000 fe:00 9995595                            /opt/a b/nbdcrypt
00ae8000-0126c000 rw-p 006e8000 fe:00 9995595                            /opt/a b/nbdcrypt
0126c000-0333b000 rw-p 00000000 00:00 0 
0ac97000-0acb8000 rw-p 00000000 00:00 0                                  [heap]
295eac000000-295eae800000 ---p 00000000 00:00 0 
295eae800000-295eaf400000 rw-p 00000000 00:00 0 
295eaf400000-295eb0000000 ---p 00000000 00:00 0 
7f2f54000000-7f2f54021000 rw-p 00000000 00:00 0 
7f2f71a00000-7f2f71e00000 rw-s 00000000 fe:00 9994434                    /state/catalog/00001.mem (deleted)
7f2fbff79000-7f2fbff7d000 r--p 00000000 00:00 0                          [anon: Go: gc bits]
7ffe88a1b000-7ffe88a3c000 rw-p 00000000 00:00 0                          [stack]
ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0                  [vsyscall]
`

func TestMaps(t *testing.T) {
	list, err := parseMaps([]byte(example))
	must(t, err)
	name(list, 0x295eae800123)
	want := []region{
		{0x00400000, 0x00ae8000, true, "/opt/a b/nbdcrypt"},
		{0x00ae8000, 0x0126c000, true, "/opt/a b/nbdcrypt"},
		{0x0126c000, 0x0333b000, true, "/opt/a b/nbdcrypt: its variables"},
		{0x0ac97000, 0x0acb8000, true, "[heap]"},
		{0x295eac000000, 0x295eae800000, false, goHeap},
		{0x295eae800000, 0x295eaf400000, true, goHeap},
		{0x295eaf400000, 0x295eb0000000, false, goHeap},
		{0x7f2f54000000, 0x7f2f54021000, true, nameless},
		{0x7f2f71a00000, 0x7f2f71e00000, true, "/state/catalog/00001.mem (deleted)"},
		{0x7f2fbff79000, 0x7f2fbff7d000, true, "[anon: Go: gc bits]"},
		{0x7ffe88a1b000, 0x7ffe88a3c000, true, "[stack]"},
		{0xffffffffff600000, 0xffffffffff601000, false, "[vsyscall]"},
	}
	if !reflect.DeepEqual(list, want) {
		t.Errorf("%+v", list)
	}
}

func TestMapsRefused(t *testing.T) {
	for what, text := range map[string]string{
		"no numbers": "x-y rw-p 0 0:0 0 \n", "no end": "1000 rw-p 0 0:0 0 \n", "empty": "1000-1000 rw-p 0 0:0 0 \n", "backwards": "2000-1000 rw-p 0 0:0 0 \n",
		"overlapping": "1000-3000 rw-p 0 0:0 0 \n2000-4000 rw-p 0 0:0 0 \n", "short": "1000-2000 rw-p\n", "permissions": "1000-2000 rw 0 0:0 0 \n", "blank": "\n",
	} {
		if list, err := parseMaps([]byte(text)); err == nil {
			t.Errorf("%s: %+v", what, list)
		}
	}
}

func TestWithout(t *testing.T) {
	list := []region{{10, 20, true, "a"}, {20, 30, true, "b"}, {50, 60, true, "c"}}
	for _, c := range []struct {
		spans []secret.Span
		want  []region
	}{
		{nil, list},
		{[]secret.Span{{From: 0, To: 100}}, nil},
		{[]secret.Span{{From: 30, To: 50}}, list},
		{[]secret.Span{{From: 52, To: 54}, {From: 15, To: 25}},
			[]region{{10, 15, true, "a"}, {25, 30, true, "b"}, {50, 52, true, "c"}, {54, 60, true, "c"}}},
		{[]secret.Span{{From: 10, To: 20}, {From: 50, To: 55}, {From: 55, To: 60}}, []region{{20, 30, true, "b"}}},
	} {
		if got := without(list, c.spans); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%+v: %+v", c.spans, got)
		}
	}
}

// FuzzMaps: what comes out lies in order, and is there in the text.
func FuzzMaps(f *testing.F) {
	self, err := os.ReadFile("/proc/self/maps")
	must(f, err)
	f.Add([]byte(example))
	f.Add(self)
	f.Fuzz(func(t *testing.T, text []byte) {
		list, err := parseMaps(text)
		if err != nil {
			return
		}
		last := uintptr(0)
		for _, r := range list {
			if r.from < last || r.to <= r.from || !strings.Contains(string(text), r.name) {
				t.Errorf("%+v after %x", r, last)
			}
			last = r.to
		}
		name(list, 0)
		for _, r := range list {
			if r.name == "" {
				t.Errorf("%+v has no name", r)
			}
		}
	})
}
