package demo

import (
	"bufio"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// guestWord is what the kernel is told with the word that is in the image; what it does not know it gives to the first program.
	guestWord = "NBDCRYPT_DEMO_WORD"
	// guestSays stands before the word on the console, so that it can't be taken for what a boot loader or the kernel print.
	guestSays = "Hello from the encrypted disk. Its word is "
	// guestTime is how long the guest waits for somebody to answer.
	guestTime = time.Minute
)

// Guest tells whether this program is the whole system of the server that the tour boots, and is that system then: it says the word, waits for a line,
// and switches the machine off.
func Guest() bool {
	word := os.Getenv(guestWord)
	if os.Getpid() != 1 || os.Args[0] != "/init" || word == "" {
		return false
	}
	// A line of its own, whatever stands on the console.
	fmt.Printf("\r\n%s%s\r\nAny line switches me off: ", guestSays, word)
	answered := make(chan struct{})
	go func() {
		_, _ = bufio.NewReader(os.Stdin).ReadString('\n')
		close(answered)
	}()
	select {
	case <-answered:
	case <-time.After(guestTime):
	}
	fmt.Print("\r\nGood night.\r\n")
	_ = unix.IoctlSetInt(1, unix.TCSBRK, 1) // waits until the serial port has sent it all
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
	select {} // the kernel panics where its first program ends
}
