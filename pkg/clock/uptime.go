package clock

import (
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// uptime tells for how long the machine has been up in this boot, suspended or not. The boot is empty where the kernel does not say.
func uptime() (boot string, up time.Duration) {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	var ts unix.Timespec
	if err != nil || unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return "", 0
	}
	return strings.TrimSpace(string(id)), time.Duration(ts.Nano())
}
