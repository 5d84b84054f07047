// Command guest is the first program in the test's virtual machine: it brings the system up, runs what the test asks for over a serial port, and
// reaps what others leave behind. It has subcommands that tests run in there.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// commands are the subcommands: each gets its arguments and returns the exit code.
var commands = map[string]func(args []string) int{"agent": agent, "load": writeLoad}

func main() {
	if os.Getpid() == 1 {
		fail(first())
	}
	if len(os.Args) > 1 && commands[os.Args[1]] != nil {
		os.Exit(commands[os.Args[1]](os.Args[2:]))
	}
	fmt.Fprintf(os.Stderr, "%s is run by tests, with one of the commands that are in %s\n", filepath.Base(os.Args[0]), "cmd/nbdcrypt/vmtest/guest")
	os.Exit(2)
}

// first is process 1, of a server or of a machine of a test: the agent does the work in a process of its own, since whoever waits for any child would take its children's ends from it.
func first() error {
	if err := bringUp(); err != nil {
		return err
	}
	if err := goToRoot(); err != nil {
		return err
	}
	if script := told("guest.server"); script != "" {
		return server(script)
	}
	agent := exec.Command("/init", "agent")
	agent.Stdout, agent.Stderr = os.Stdout, os.Stderr
	if err := agent.Start(); err != nil {
		return err
	}
	if program := told("guest.init"); program != "" {
		return syscall.Exec(program, []string{program}, os.Environ())
	}
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, 0, nil)
		if err == nil && pid == agent.Process.Pid {
			return fmt.Errorf("the agent ended with %d", status.ExitStatus())
		}
	}
}

// fail ends the machine: QEMU is told not to start it again, so that the test sees it go.
func fail(err error) {
	fmt.Println("guest:", err)
	syscall.Sync()
	_ = syscall.Reboot(syscall.LINUX_REBOOT_CMD_RESTART)
}
