//go:build vm

package vmtest

import (
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"nbdcrypt/pkg/control"
)

// bootSector is a guest of one sector, by hand: it says on the serial port what the disk's second sector holds, up to its first zero byte. Then it does what it hears there: w writes over
// the disk from there on, a dot for each 32 KiB; r reboots; o switches off. It does not hear the power button. Where a row stands in memory it says first.
const bootSector = `
7C00  FA              cli
7C01  FC              cld
7C02  31 C0           xor ax, ax
7C04  8E D8           mov ds, ax
7C06  8E C0           mov es, ax
7C08  8E D0           mov ss, ax
7C0A  BC 00 7C        mov sp, 7C00
7C0D  88 16 F0 7D     mov [7DF0], dl      ; the disk, as the firmware calls it
7C11  B4 42           mov ah, 42          ; read
7C13  E8 62 00        call 7C78
7C16  BE 00 80        mov si, 8000
7C19  AC              lodsb
7C1A  84 C0           test al, al
7C1C  74 05           jz 7C23
7C1E  E8 48 00        call 7C69
7C21  EB F6           jmp 7C19
7C23  BA FD 03        mov dx, 3FD         ; has a byte come?
7C26  EC              in al, dx
7C27  A8 01           test al, 01
7C29  74 F8           jz 7C23
7C2B  BA F8 03        mov dx, 3F8
7C2E  EC              in al, dx
7C2F  3C 77           cmp al, 'w'
7C31  74 15           je 7C48
7C33  3C 72           cmp al, 'r'
7C35  75 04           jne 7C3B
7C37  B0 FE           mov al, FE          ; the keyboard controller resets the processor
7C39  E6 64           out 64, al
7C3B  3C 6F           cmp al, 'o'
7C3D  75 E4           jne 7C23
7C3F  BA 04 06        mov dx, 604         ; ACPI's state S5, where this firmware has its register
7C42  B8 00 20        mov ax, 2000
7C45  EF              out dx, ax
7C46  EB DB           jmp 7C23
7C48  C7 06 86 7C 40 00 mov word [7C86], 40
7C4E  83 06 8C 7C 40  add word [7C8C], 40
7C53  83 16 8E 7C 00  adc word [7C8E], 0
7C58  B8 00 43        mov ax, 4300        ; write
7C5B  E8 1A 00        call 7C78
7C5E  B0 2E           mov al, '.'
7C60  73 02           jnc 7C64
7C62  B0 21           mov al, '!'         ; it failed
7C64  E8 02 00        call 7C69
7C67  EB E5           jmp 7C4E
7C69  50              push ax             ; say what is in al
7C6A  BA FD 03        mov dx, 3FD
7C6D  EC              in al, dx
7C6E  A8 20           test al, 20
7C70  74 FB           jz 7C6D
7C72  58              pop ax
7C73  BA F8 03        mov dx, 3F8
7C76  EE              out dx, al
7C77  C3              ret
7C78  BE 84 7C        mov si, 7C84        ; ask the firmware
7C7B  8A 16 F0 7D     mov dl, [7DF0]
7C7F  CD 13           int 13
7C81  FA              cli
7C82  C3              ret
7C83  90              nop
7C84  10 00 01 00 00 80 00 00 01 00 00 00 00 00 00 00 ; one sector, to 0000:8000, of the disk the second
`

// oneSector is a disk that such a guest boots from and says the words of.
func oneSector(t *testing.T, words string) []byte {
	t.Helper()
	disk := make([]byte, 1<<20)
	at := 0
	for _, row := range regexp.MustCompile(`(?m)^7C(..)  ((?:[0-9A-F]{2} )+)`).FindAllStringSubmatch(bootSector, -1) {
		code, err := hex.DecodeString(strings.ReplaceAll(row[2], " ", ""))
		if err != nil || row[1] != fmt.Sprintf("%02X", at) {
			t.Fatalf("the row %q is not at %02X, %v", row[0], at, err)
		}
		at += copy(disk[at:], code)
	}
	copy(disk[510:], "\x55\xAA") // it boots
	copy(disk[512:1024], words)
	return disk
}

// bootImage makes an image of one.
func bootImage(t *testing.T, h *host, name, words string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "image")
	check(t, os.WriteFile(path, oneSector(t, words), 0o600))
	h.do("image", "create", name, "--from-file", path, "--key", "servers")
}

// says types on a console.
func (c *console) says(words string) {
	c.t.Helper()
	if _, err := c.in.Write([]byte(words)); err != nil {
		c.t.Fatal(err)
	}
}

// A server whose guest is not Linux: it boots from the disk that it should, again when it resets itself, and its end is the run's when it switches itself off. One that does not hear the power
// button is switched off, and who stopped it is told so.
func TestServerOfOneSector(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	bootImage(t, h, "one", "these are the words of one\n")
	h.do("server", "create", "s1", "--image", "one", "--memory", "64M", "--data-disk", "size=1M")
	h.start("s1")
	c := openConsole(t, h.dir, "s1")
	c.wait(regexp.MustCompile("these are the words of one"))
	c.says("r")
	c.wait(regexp.MustCompile("(?s)the words of one.*the words of one"))
	c.says("o")
	c.gone()
	if ended := h.stopped("s1").Ended; !strings.Contains(ended, "the guest shut down") {
		t.Errorf("it is said that %q", ended)
	}
	h.start("s1")
	openConsole(t, h.dir, "s1").wait(regexp.MustCompile("these are the words of one"))
	if said := h.do("server", "stop", "s1", "--timeout", "1s"); !strings.Contains(said, "had not shut down within 1s, and was switched off") {
		t.Errorf("the stop says %q", said)
	}
	h.detached("s1")
}

// A full pool has the guest stand still, which `server show` tells; once there is room it goes on by itself, and no write of its failed. What it can't be asked while it stands, to shut down, ends
// by the power switch.
func TestServerOnAFullPool(t *testing.T) {
	t.Parallel()
	pool := smallPool(t, "96M")
	h := newHost(t, "--pool", pool)
	bootImage(t, h, "one", "these are the words of one\n")
	h.do("server", "create", "s1", "--image", "one", "--memory", "64M", "--system-size", "4G", "--network", "none")
	h.start("s1")
	c := openConsole(t, h.dir, "s1")
	c.wait(regexp.MustCompile("the words of one"))
	filler := filepath.Join(pool, "filler")
	fill(t, pool, filler, 16<<20)
	c.says("w")
	stands := func() bool { return strings.Contains(strings.Join(h.server("s1").Warnings, " "), "No space left") }
	until(t, "the guest stands still", stands)
	before := strings.Count(c.text(), ".")
	check(t, os.Remove(filler))
	until(t, "the guest goes on", func() bool { return strings.Count(c.text(), ".") > before+10 })
	until(t, "it stands still again", stands) // the pool is full of its own words now
	if strings.Contains(c.text(), "!") {
		t.Error("the guest was told of an error")
	}
	if said := h.do("server", "stop", "s1", "--timeout", "1s"); !strings.Contains(said, "stood still") {
		t.Errorf("the stop says %q", said)
	}
	if s := ask[control.Server](h, "server", "show", "s1"); s.Status != control.ServerStopped && s.Status != control.ServerStopping {
		t.Errorf("it is %s", s.Status)
	}
}
