package main

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// server runs a script on the console as all that there is, where nobody but a serial port is at the other end. The machine goes off when the script ends, or
// when the power button is pressed.
func server(script string) error {
	go powerButton()
	cmd := exec.Command("/bin/sh", script)
	cmd.Stdin, cmd.Stdout, cmd.Stderr, cmd.Dir = os.Stdin, os.Stdout, os.Stderr, "/root"
	fmt.Println("guest: the script has ended:", cmd.Run())
	off()
	return nil
}

func off() {
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_POWER_OFF)
}

// inputEvent is the kernel's struct input_event on 64 bits; the button's is a key that is pressed.
type inputEvent struct {
	Seconds, Micros int64
	Type, Code      uint16
	Value           int32
}

// powerButton waits for it at all inputs that there are.
func powerButton() {
	inputs, _ := filepath.Glob("/dev/input/event*") // the pattern is well-formed
	for _, path := range inputs {
		go func() {
			f, err := os.Open(path)
			if err != nil {
				return
			}
			defer f.Close()
			const key, power = 1, 116
			for e := (inputEvent{}); binary.Read(f, binary.NativeEndian, &e) == nil; {
				if e.Type == key && e.Code == power && e.Value == 1 {
					fmt.Println("guest: the power button was pressed")
					off()
				}
			}
		}()
	}
}
