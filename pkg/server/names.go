package server

import (
	"fmt"
	"strings"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// How long names can be, so that the names that are made of them are names of disks.
const (
	maxName       = 128 // of a disk, and so of a configuration, whose image is called like it
	maxServerName = maxName - len("-data-23")
	maxGroupName  = maxServerName - len("-12345678")
	maxNumber     = 99999999
)

// checkName refuses what can't be the name of such.
func checkName(what, name string, most int) error {
	if err := volume.CheckName(name); err != nil {
		return refusal.New(refusal.Usage, refusal.From(err).Hint, "%.200q can't be the name of a %s", name, what)
	}
	if len(name) > most {
		return refusal.New(refusal.Usage, fmt.Sprintf("use at most %d characters", most),
			"%.200q is too long for a %s, whose disks are called by its name and what they are", name, what)
	}
	return nil
}

// diskName is what the disk of a server is called, the data disks from 1 on.
func diskName(server string, data int) string {
	if data == 0 {
		return server + "-system"
	}
	return fmt.Sprintf("%s-data-%d", server, data)
}

func memberName(group string, number int) string { return fmt.Sprintf("%s-%d", group, number) }

// withDefaults fills in what was left open, and refuses what no server can have.
func (m machine) withDefaults() (machine, error) {
	if m.CPUs == 0 {
		m.CPUs = DefaultCPUs
	}
	if m.Memory == 0 {
		m.Memory = DefaultMemory
	}
	if m.Network == "" {
		m.Network = NetworkUser
	}
	switch {
	case m.CPUs < 1 || m.CPUs > MaxCPUs:
		return m, refusal.New(refusal.Usage, fmt.Sprintf("use 1 to %d", MaxCPUs), "a server can't have %d CPUs", m.CPUs)
	case m.Memory < MinMemory || m.Memory%(1<<20) != 0:
		return m, refusal.New(refusal.Usage, "use at least 64 MiB, and whole MiB, such as 512M", "a server can't have %d bytes of memory", m.Memory)
	case m.Network != NetworkUser && m.Network != NetworkNone:
		return m, refusal.New(refusal.Usage, "use user or none", "there is no network %.200q", m.Network)
	}
	return m, nil
}

func checkData(n int) error {
	if n > MaxDataDisks {
		return refusal.New(refusal.Usage, fmt.Sprintf("use at most %d", MaxDataDisks), "a server can't have %d data disks", n)
	}
	return nil
}

// few names some of many.
func few(names []string) string {
	const most = 5
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
