package main

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// unit reads the settings of a unit file by their names; one that is given twice has both values.
func unit(t *testing.T, name string) map[string][]string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	settings := map[string][]string{}
	section := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		name, value, is := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#':
		case line[0] == '[':
			section = strings.Trim(line, "[]") + "."
		case !is:
			t.Errorf("neither a section nor a setting: %q", line)
		default:
			settings[section+name] = append(settings[section+name], value)
		}
	}
	return settings
}

// The unit keeps keys in memory, and the daemon away from all else.
func TestUnitProtectsKeys(t *testing.T) {
	settings := unit(t, "nbdcrypt.service")
	for name, want := range map[string]string{
		"MemorySwapMax": "0", "LimitMEMLOCK": "64M", "LimitCORE": "0", "NoNewPrivileges": "yes", "ProtectSystem": "strict", "PrivateTmp": "yes",
		"CapabilityBoundingSet": "CAP_IPC_LOCK CAP_SYS_RESOURCE", "MemoryDenyWriteExecute": "yes", "RestrictNamespaces": "yes", "Type": "notify",
	} {
		if got := settings["Service."+name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %s", name, got, want)
		}
	}
	calls := strings.Fields(strings.Join(settings["Service.SystemCallFilter"], " "))
	for _, call := range []string{"@system-service", "memfd_secret", "process_vm_readv"} {
		if !slices.Contains(calls, call) {
			t.Errorf("%s is not among the system calls that the daemon may make: %q", call, calls)
		}
	}
}

// Both units speak of the same sockets, which must not go away with the service.
func TestSocketUnit(t *testing.T) {
	socket, service := unit(t, "nbdcrypt.socket"), unit(t, "nbdcrypt.service")
	if got := socket["Socket.ListenStream"]; !slices.Equal(got, []string{"/run/nbdcrypt/control.sock", "/run/nbdcrypt/nbd.sock"}) {
		t.Errorf("the sockets are %q", got)
	}
	for name, want := range map[string]string{"RuntimeDirectory": "nbdcrypt", "RuntimeDirectoryPreserve": "yes"} {
		if got := service["Service."+name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %s", name, got, want)
		}
	}
}

// A device goes on when the daemon restarts, is there before what is mounted from it, ends after that and before the daemon, and mounts where
// all see it.
func TestAttachUnit(t *testing.T) {
	settings := unit(t, "nbdcrypt-attach@.service")
	for name, want := range map[string]string{
		"Service.Type": "notify", "Unit.After": "nbdcrypt.service", "Unit.Before": "remote-fs-pre.target", "Service.KillMode": "mixed", "Service.OOMPolicy": "continue",
		"Service.ExecStart": "/usr/local/bin/nbdcrypt attach %I --device auto --foreground $NBDCRYPT_ATTACH", "Service.EnvironmentFile": "-/etc/nbdcrypt/attach/%i.conf",
	} {
		if got := settings[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %s", name, got, want)
		}
	}
	if wants := settings["Unit.Wants"]; !slices.Contains(wants, "nbdcrypt.service") || !slices.Contains(wants, "remote-fs-pre.target") {
		t.Errorf("it wants %q", wants)
	}
	for name := range settings {
		for _, bad := range []string{"Unit.Requires", "Unit.BindsTo", "Unit.PartOf", "Service.Protect", "Service.Private", "Service.ReadOnlyPaths", "Service.ReadWritePaths"} {
			if strings.HasPrefix(name, bad) {
				t.Errorf("it has %s", name)
			}
		}
	}
	seconds := func(name, of string) int {
		n, err := strconv.Atoi(unit(t, of)["Service."+name][0])
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	if mine, daemons := seconds("TimeoutStopSec", "nbdcrypt-attach@.service"), seconds("TimeoutStopSec", "nbdcrypt.service"); mine <= daemons {
		t.Errorf("it has %d s to stop, the daemon %d s", mine, daemons)
	}
}

// A server goes on when the daemon restarts, is asked to shut down by a stop, which it gets the time for, and has no more of the machine than it needs.
func TestServerUnit(t *testing.T) {
	settings := unit(t, "nbdcrypt-server@.service")
	for name, want := range map[string]string{
		"Service.Type": "notify", "Unit.Wants": "nbdcrypt.service", "Service.KillMode": "mixed", "Service.TimeoutStopSec": "120", "Service.OOMPolicy": "continue",
		"Service.ExecStart": "/usr/local/bin/nbdcrypt server start %I --foreground $NBDCRYPT_SERVER", "Service.EnvironmentFile": "-/etc/nbdcrypt/server/%i.conf",
		"Service.CapabilityBoundingSet": "", "Service.NoNewPrivileges": "yes", "Service.ProtectSystem": "strict", "Service.DevicePolicy": "closed", "Service.DeviceAllow": "/dev/kvm rw",
		"Service.RuntimeDirectory": "nbdcrypt-servers/%i", "Service.RuntimeDirectoryMode": "0700", "Service.Environment": "XDG_RUNTIME_DIR=%t/nbdcrypt-servers/%i",
	} {
		if got := settings[name]; !slices.Equal(got, []string{want}) {
			t.Errorf("%s=%q, want %s", name, got, want)
		}
	}
	for _, bad := range []string{"Unit.Requires", "Unit.BindsTo", "Unit.PartOf", "Service.PrivateDevices", "Service.PrivateNetwork", "Service.MemoryDenyWriteExecute", "Service.LimitCORE"} {
		if got := settings[bad]; got != nil {
			t.Errorf("%s=%q", bad, got)
		}
	}
	if after := strings.Fields(strings.Join(settings["Unit.After"], " ")); !slices.Contains(after, "nbdcrypt.service") {
		t.Errorf("it is started after %q", after)
	}
	codes := strings.Fields(strings.Join(settings["Service.RestartPreventExitStatus"], " "))
	for code := range 11 {
		passes := code == 0 || code == 1 || code == 6 || code == 7 || code == 10
		if slices.Contains(codes, strconv.Itoa(code)) == passes {
			t.Errorf("exit code %d may change by itself is %t; it is not tried again after %q", code, passes, codes)
		}
	}
}
