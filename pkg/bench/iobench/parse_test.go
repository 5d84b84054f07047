package iobench

import (
	"slices"
	"strings"
	"testing"
	"time"
)

// TestParseStat: names of programs may hold whatever a path may.
func TestParseStat(t *testing.T) {
	const rest = " S 1 2 3 0 -1 4194560 100 200 0 0 123 45 7 8 20 0 9 0 100 1 2"
	for _, name := range []string{"nbdkit", "a b", "a) S 1 2 3 (b", "((", "))) 9 9 9"} {
		if got, err := parseStat([]byte("4711 (" + name + ")" + rest)); err != nil || got != 1680*time.Millisecond {
			t.Errorf("%q: %v, %v", name, got, err)
		}
	}
	for _, broken := range []string{"", "4711", "4711 (x", "4711 (x) S 1 2 3", strings.Replace("4711 (x)"+rest, "123", "-1", 1), strings.TrimPrefix(rest, " ")} {
		if got, err := parseStat([]byte(broken)); err == nil {
			t.Errorf("%q: %v", broken, got)
		}
	}
}

// TestCPUTime: work is seen, of this process too.
func TestCPUTime(t *testing.T) {
	before, err := cpuTime(1)
	if err != nil || before < 0 {
		t.Error(before, err)
	}
	if _, err := cpuTime(1 << 30); err == nil {
		t.Error("a process that is not there has taken time")
	}
}

const fioSaid = `fio: connected to NBD server
{"fio version":"fio-3.33","jobs":[{"jobname":"x","error":0,
"read":{"io_bytes":0,"total_ios":0,"runtime":0},
"write":{"io_bytes":92372992,"bw_bytes":184377229,"iops":45013.97,"runtime":501,"total_ios":22552},
"sync":{"total_ios":1400}}]}`

func TestParseFio(t *testing.T) {
	if got, err := parseFio([]byte(fioSaid)); err != nil || got != (done{bytes: 92372992, ops: 22552, took: 501 * time.Millisecond}) {
		t.Errorf("%+v, %v", got, err)
	}
	read := strings.Replace(strings.Replace(fioSaid, `"write"`, `"trim"`, 1), `"read":{"io_bytes":0,"total_ios":0,"runtime":0}`, `"read":{"io_bytes":4096,"total_ios":1,"runtime":2}`, 1)
	if got, err := parseFio([]byte(read)); err != nil || got != (done{bytes: 4096, ops: 1, took: 2 * time.Millisecond}) {
		t.Errorf("%+v, %v", got, err)
	}
	for _, broken := range []string{"", "fio: no", `{"jobs":[]}`, `{"jobs":[{"error":0}]}`, strings.Replace(fioSaid, `"error":0`, `"error":5`, 1), fioSaid[:len(fioSaid)-3]} {
		if got, err := parseFio([]byte(broken)); err == nil {
			t.Errorf("%q: %+v", broken, got)
		}
	}
}

// TestFioWords: where jobs would get into each other's way each has a part of the disk, in whole blocks; and what is written first is written once.
func TestFioWords(t *testing.T) {
	at := turn{length: 500 * time.Millisecond, size: 100 << 20}
	for _, c := range []struct {
		column string
		want   []string
		not    string
	}{
		{"read-1m", []string{"--rw=read", "--bs=1048576", "--iodepth=8", "--numjobs=8", "--runtime=500ms", "--time_based", "--size=12582912", "--offset_increment=12582912"}, "--fsync="},
		{"randread-4k", []string{"--rw=randread", "--bs=4096", "--iodepth=32", "--size=104857600", "--norandommap"}, "--offset_increment="},
		{"first-4k", []string{"--rw=randwrite", "--size=13107200", "--offset_increment=13107200"}, "--time_based"},
		{"fsync-16", []string{"--rw=randwrite", "--fsync=16"}, "--offset_increment="},
	} {
		column := named(c.column)
		words := fioWords(column, "nbd+unix:///?socket=/s", 8, at)
		for _, want := range append(c.want, "--uri=nbd+unix:///?socket=/s", "--ioengine=nbd") {
			if !slices.Contains(words, want) {
				t.Errorf("%s: no %s in %q", c.column, want, words)
			}
		}
		if slices.ContainsFunc(words, func(w string) bool { return strings.HasPrefix(w, c.not) }) {
			t.Errorf("%s: %s in %q", c.column, c.not, words)
		}
	}
}

func TestMountedAt(t *testing.T) {
	const table = `/dev/vda / ext4 rw 0 0
proc /proc proc rw 0 0
tmpfs /dev/shm tmpfs rw 0 0
/dev/vdb /srv xfs rw 0 0
/dev/vdc /srv/with\040blank btrfs rw 0 0
tmpfs /srv tmpfs rw 0 0
`
	for dir, want := range map[string]string{"/": "ext4", "/dev/shm": "tmpfs", "/dev/shm/a/b": "tmpfs", "/dev/shmem": "ext4", "/srv": "tmpfs", "/srv/with blank/x": "btrfs", "/home": "ext4"} {
		if got := mountedAt(table, dir); got != want {
			t.Errorf("%s: %s, want %s", dir, got, want)
		}
	}
}

func TestFieldsOfProc(t *testing.T) {
	const text = "processor\t: 0\nmodel name\t: AMD EPYC: 9\nMemTotal:       24105000 kB\n"
	if got := value(text, "model name"); got != "AMD EPYC: 9" {
		t.Error(got)
	}
	if got := kibibytes(value(text, "MemTotal")); got != 24105000<<10 {
		t.Error(got)
	}
	if got := kibibytes(value(text, "MemFree")); got != 0 {
		t.Error(got)
	}
	if m := memory(); m.Total < 1<<24 || m.Available <= 0 || m.Available > m.Total {
		t.Errorf("%+v", m)
	}
}
