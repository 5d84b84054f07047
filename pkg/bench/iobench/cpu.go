package iobench

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"time"
)

// tick is the unit of times in /proc: USER_HZ, which is 100 on all of Linux's architectures that Go knows.
const tick = 10 * time.Millisecond

// cpuTime is the processor time that a process has taken so far, in all its threads, those that ended too.
func cpuTime(pid int) (time.Duration, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, fmt.Errorf("processor time: %w", err)
	}
	return parseStat(stat)
}

// parseStat reads utime and stime, the fields 14 and 15 of proc_pid_stat(5). The second field is the program's name in parentheses, which
// may hold blanks and parentheses itself, so that fields are counted from the last one.
func parseStat(stat []byte) (time.Duration, error) {
	const utime, stime = 14 - 3, 15 - 3 // behind the name comes field 3
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:])
	if len(fields) <= stime || bytes.IndexByte(stat, ')') < 0 {
		return 0, fmt.Errorf("processor time: %q is no line of /proc/PID/stat", stat)
	}
	var sum uint64
	for _, field := range fields[utime : stime+1] {
		ticks, err := strconv.ParseUint(string(field), 10, 48)
		if err != nil {
			return 0, fmt.Errorf("processor time: %w", err)
		}
		sum += ticks
	}
	return time.Duration(sum) * tick, nil
}
