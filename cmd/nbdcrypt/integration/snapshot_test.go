//go:build integration

package integration

import (
	"bufio"
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/integration/keyscan"
)

// A snapshot is what somebody else got of a process's memory. It is kept without its pages of zeros, which are most of it.
type snapshot struct {
	name  string
	blob  []byte
	parts []part
	// read is how many bytes there were, unreadable how many of secret memory could not be had.
	read, unreadable int64
}

// A part of a blob is a run of bytes from one place.
type part struct {
	at    int // in the blob
	addr  uint64
	place string
}

const pageSize = 4096

var zeros [pageSize]byte

// mapping is a line of /proc/PID/maps.
type mapping struct {
	from, to   uint64
	mode, name string
}

func (m mapping) secret() bool { return strings.HasPrefix(m.name, "/secretmem") }

// mappings reads the mappings of a process, the lowest first.
func mappings(t *testing.T, pid int) (list []mapping) {
	t.Helper()
	for line := range strings.Lines(string(readFile(t, fmt.Sprintf("/proc/%d/maps", pid)))) {
		var m mapping
		_, err := fmt.Sscanf(line, "%x-%x %s", &m.from, &m.to, &m.mode)
		check(t, err)
		if fields := strings.Fields(line); len(fields) > 5 {
			m.name = strings.Join(fields[5:], " ")
		}
		list = append(list, m)
	}
	return list
}

// add appends a run of bytes.
func (s *snapshot) add(page []byte, addr uint64, place string) {
	s.read += int64(len(page))
	if bytes.Equal(page, zeros[:len(page)]) {
		return
	}
	last := len(s.parts) - 1
	if last < 0 || s.parts[last].place != place || s.parts[last].addr+uint64(len(s.blob)-s.parts[last].at) != addr {
		s.parts = append(s.parts, part{len(s.blob), addr, place})
	}
	s.blob = append(s.blob, page...)
}

// where says what is at an offset of the blob.
func (s *snapshot) where(offset int) (addr uint64, place string) {
	i := sort.Search(len(s.parts), func(i int) bool { return s.parts[i].at > offset }) - 1
	p := s.parts[i]
	return p.addr + uint64(offset-p.at), p.place
}

// frozen runs f while a process stands still, so that what it sees is of one moment.
func frozen(t *testing.T, pid int, f func()) {
	t.Helper()
	check(t, syscall.Kill(pid, syscall.SIGSTOP))
	defer syscall.Kill(pid, syscall.SIGCONT)
	waitFor(t, "the process does not stop", func() bool {
		_, state, _ := strings.Cut(string(readFile(t, fmt.Sprintf("/proc/%d/stat", pid))), ") ")
		return state[0] == 'T'
	})
	f()
}

// memory reads whatever root can read of a process through /proc/PID/mem.
func memory(t *testing.T, pid int) *snapshot {
	t.Helper()
	s := &snapshot{name: "/proc/PID/mem"}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", pid))
	check(t, err)
	defer mem.Close()
	frozen(t, pid, func() {
		for _, m := range mappings(t, pid) {
			if m.mode[0] == 'r' && !strings.HasPrefix(m.name, "[v") { // the kernel's own pages
				s.readMapping(t, mem, m)
			}
		}
	})
	if s.read < 10<<20 || len(s.blob) < 1<<20 {
		t.Fatalf("only %d bytes of memory could be read, of them %d are not zero", s.read, len(s.blob))
	}
	return s
}

func (s *snapshot) readMapping(t *testing.T, mem io.ReaderAt, m mapping) {
	t.Helper()
	page := make([]byte, pageSize)
	for at := m.from; at < m.to; at += pageSize {
		_, err := mem.ReadAt(page, int64(at))
		switch {
		case m.secret() && err == nil:
			t.Errorf("%#x: secret memory can be read", at)
		case m.secret():
			s.unreadable += pageSize
			continue
		case err != nil && strings.HasPrefix(m.mode, "rw"):
			t.Fatalf("%#x-%#x %s: %v", m.from, m.to, m.name, err)
		case err != nil: // of a file that is shorter than its mapping
			continue
		}
		s.add(page, at, m.name+" "+m.mode)
	}
}

// oneCore: a core of the daemon has a gigabyte of zeros for what Go has reserved, and more than one may not fit.
var oneCore sync.Mutex

// core has gdb write a core of a process, which is read and removed. all makes gdb pass over what a process asks to be left out of dumps.
func core(t *testing.T, pid int, all bool) *snapshot {
	t.Helper()
	oneCore.Lock()
	defer oneCore.Unlock()
	s := &snapshot{name: "core"}
	args := []string{"-o", t.TempDir() + "/core", fmt.Sprint(pid)}
	if all {
		s.name, args = "core of everything", append([]string{"-a"}, args...)
	}
	mapped := mappings(t, pid)
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	check(t, err)
	said := tool(t, "gcore", args...)
	path := fmt.Sprintf("%s.%d", args[len(args)-2], pid)
	defer os.Remove(path)
	registers, err := s.readCore(path, mapped)
	if err != nil || registers < len(threads) {
		t.Fatalf("the core has the registers of %d threads of %d, err %v; gcore said:\n%s", registers, len(threads), err, said)
	}
	if s.read < 10<<20 || len(s.blob) < 1<<20 {
		t.Fatalf("a core of %d bytes was written, of which %d are not zero; gcore said:\n%s", s.read, len(s.blob), said)
	}
	return s
}

// readCore reads the whole file, and counts the threads whose registers are in it. Its program headers tell what is where.
func (s *snapshot) readCore(path string, mapped []mapping) (threads int, err error) {
	f, err := elf.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		place := registers
		if p.Type == elf.PT_LOAD {
			place = nameOf(mapped, p.Vaddr)
		} else if threads, err = countThreads(p, vectorNote[f.Machine]); err != nil {
			return 0, err
		}
		if err := s.readSegment(p, place); err != nil {
			return 0, err
		}
	}
	return threads, nil
}

// registers is the place of what a core says of threads.
const registers = "a thread's registers"

// vectorNote is the type of the note that has all of a thread's vector registers: NT_X86_XSTATE, NT_FPREGSET.
var vectorNote = map[elf.Machine]uint32{elf.EM_X86_64: 0x202, elf.EM_AARCH64: 2}

func countThreads(notes *elf.Prog, vectors uint32) (n int, err error) {
	b, err := io.ReadAll(notes.Open())
	up := func(n uint32) int { return int(n+3) &^ 3 }
	for len(b) >= 12 {
		name, description, kind := binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint32(b[4:]), binary.LittleEndian.Uint32(b[8:])
		if kind == vectors {
			n++
		}
		b = b[min(len(b), 12+up(name)+up(description)):]
	}
	return n, err
}

func nameOf(mapped []mapping, addr uint64) string {
	for _, m := range mapped {
		if m.from <= addr && addr < m.to {
			return m.name + " " + m.mode
		}
	}
	return "memory that was mapped meanwhile"
}

func (s *snapshot) readSegment(p *elf.Prog, place string) error {
	segment := bufio.NewReaderSize(p.Open(), 1<<20)
	for done := uint64(0); done < p.Filesz; done += pageSize {
		page := make([]byte, min(pageSize, p.Filesz-done))
		if _, err := io.ReadFull(segment, page); err != nil {
			return fmt.Errorf("the core is cut short: %w", err)
		}
		s.add(page, p.Vaddr+done, place)
	}
	return nil
}

// leak is a piece of a key that was found where it must not be.
type leak struct {
	keyscan.Hit
	place string
}

// leaks searches a snapshot.
func (s *snapshot) leaks(scanner *keyscan.Scanner) (found []leak) {
	for _, h := range scanner.Scan(s.blob) {
		addr, place := s.where(h.Offset)
		h.Offset = int(addr)
		found = append(found, leak{h, place})
	}
	return found
}
