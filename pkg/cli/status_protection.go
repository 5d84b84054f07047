package cli

import (
	"fmt"
	"strings"

	"nbdcrypt/pkg/control"
)

// memory tells how full key memory is; a limit of 0 is none.
func memory(m control.Memory) string {
	if m.Kind == "" {
		return "not in use yet"
	}
	text := fmt.Sprintf("%s, %s, %d bytes; %d locked", m.Kind, count(m.Keys, "key", "keys"), m.Used, m.Locked)
	if m.Limit > 0 {
		text += fmt.Sprintf(" of %d", m.Limit)
	}
	return text
}

// processWord tells what keeps others out of the daemon's process. What does not stands out.
func processWord(p control.Protection) string {
	either := func(bad bool, text, good string) string {
		if bad {
			return strings.ToUpper(text)
		}
		return good
	}
	return strings.Join([]string{
		either(p.Dumpable, "dumpable", "not dumpable"),
		either(p.Core, "core files", "no core files"),
		either(!p.NoNewPrivs, "new privileges", "no new privileges"),
		either(len(p.Signals) > 0, "registers are saved at "+strings.Join(p.Signals, " "), "no signal saves registers"),
	}, ", ")
}

// swapWord tells whether memory that is not locked may get to a disk.
func swapWord(p control.Protection) string {
	means := map[string]string{"none": "none", "forbidden": "not for the daemon", "encrypted": "encrypted", "unencrypted": "NOT ENCRYPTED"}[p.Swap]
	if len(p.SwapAreas) > 0 {
		means += " (" + strings.Join(p.SwapAreas, ", ") + ")"
	}
	return means
}

// hibernationWord is told with what it would do.
func hibernationWord(p control.Protection) string {
	if p.Hibernation == "possible" {
		return "possible, and would write the keys to disk"
	}
	return p.Hibernation
}
