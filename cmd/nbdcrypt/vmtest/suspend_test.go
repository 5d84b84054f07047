//go:build vm

package vmtest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// A machine that is suspended to RAM goes on where it was when it wakes up: clients at work, a mounted file system, all that was acknowledged. While
// programs wait for the device, Linux can't freeze them, since it has frozen who would answer: then it refuses to suspend, and that harms nothing. A new
// ext4 has such a writer of its own, which fills inode tables (ext4lazyinit): it has to be through.
func TestSuspend(t *testing.T) {
	t.Parallel()
	m := withPool(t, "1G", machine.Options{})
	serve(m, "")
	const uri = "'nbd+unix:///client?socket=/run/nbdcrypt/nbd.sock'"
	m.Run(`nbdcrypt grant create
		nbdcrypt disk create client --size 64M --encrypted; nbdcrypt attach client
		nbdcrypt disk create d --size 128M --encrypted; nbdcrypt attach d --device auto
		mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 /dev/nbd0; mkdir -p /mnt/d; mount /dev/nbd0 /mnt/d; truncate -s 8M /mnt/d/load
		echo 1000 >/sys/power/pm_freeze_timeout`)
	const plan = "-seed 31 -workers 4 -sectors 2048 "
	client := startLoadWith(t, m, plan+uri)
	client.progress(t, m, 5)
	mounted := startLoad(t, m, "/mnt/d/load")
	mounted.progress(t, m, 5)
	t.Logf("with writers of a mounted file system: %s", sleepAndWake(t, m))
	mounted.progress(t, m, 5)
	m.Run(`kill -STOP $(cat /run/load.pid)
		while cat /proc/$(cat /run/load.pid)/task/*/status | grep State | grep -qv stopped; do sleep 1; done # a thread stops when its call ends
		while ps ax | grep -q '[e]xt4lazyinit'; do sleep 1; done                                              # it still reads bitmaps after the mount
		sync; echo 20000 >/sys/power/pm_freeze_timeout                                                        # the kernel's own: a sync of the pool may take a while`)
	client.progress(t, m, 5)
	if slept := sleepAndWake(t, m); !strings.Contains(slept, "slept") {
		t.Errorf("it says %s", slept)
	}
	client.progress(t, m, 5)
	m.Run("kill -CONT $(cat /run/load.pid)")
	mounted.progress(t, m, 5)
	m.Run("killall guest") // the agent has another name
	r := verifyLoad(t, m, plan, uri, client.broken())
	tally(t, "suspend to RAM under load", 1, r.Promised, r.Lost)
	verifyMounted(t, m, mounted.broken())
	if out := m.Run("umount /mnt/d; nbdcrypt detach d; nbdcrypt detach client; nbdcrypt check; dmesg"); strings.Contains(out, "I/O error") {
		t.Errorf("the kernel says:\n%s", out)
	}
}

// sleepAndWake suspends the machine, wakes it up as soon as it sleeps, and returns "slept", or why it did not.
func sleepAndWake(t *testing.T, m *machine.Machine) string {
	t.Helper()
	ended := make(chan string, 1)
	go func() {
		out, _, err := m.Try(t.Context(), "echo deep >/sys/power/mem_sleep; if echo mem >/sys/power/state; then echo slept; fi")
		ended <- fmt.Sprint(out, err)
	}()
	for range 60 {
		select {
		case out := <-ended:
			return out
		case <-time.After(time.Second):
		}
		status, err := m.QMP("query-status", nil)
		check(t, err)
		if strings.Contains(string(status), "suspended") {
			_, err = m.QMP("system_wakeup", nil)
			check(t, err)
		}
	}
	return "it does not wake up"
}
