package child

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/crypto/argon2"
	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/secret"
)

var work = secret.Purpose{Kind: "child", For: "one argon2"}

// serve is the child: a request from in, an answer to out.
func serve(in, out int) {
	err := hide()
	if err == nil {
		err = answer(in, out)
	}
	if err != nil {
		_ = writeAll(out, append([]byte{answerWhy}, err.Error()...))
	}
}

// hide makes sure that nobody reads this process's memory. Nothing is secret in it before.
func hide() error {
	// Where memory runs out the child goes, not the daemon. It has to be asked for while the process is dumpable still.
	_ = os.WriteFile("/proc/self/oom_score_adj", []byte("1000"), 0)
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return fmt.Errorf("child: PR_SET_DUMPABLE: %w", err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return fmt.Errorf("child: RLIMIT_CORE: %w", err)
	}
	lockAll()
	return nil
}

// lockAll keeps all of this process out of swap where no limit is in the way: with one, allocating would fail later on.
func lockAll() {
	none := unix.Rlimit{Cur: unix.RLIM_INFINITY, Max: unix.RLIM_INFINITY}
	_ = unix.Setrlimit(unix.RLIMIT_MEMLOCK, &none) // not needed with CAP_IPC_LOCK, and allowed with CAP_SYS_RESOURCE
	if secret.Stats().Limit == 0 {
		_ = unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT)
	}
}

func answer(in, out int) error {
	mem, err := secret.Work(maxRequest+1+1+KeySize, work)
	if err != nil {
		return err
	}
	defer mem.Destroy()
	b, result := mem.Bytes()[:maxRequest+1], mem.Bytes()[maxRequest+1:]
	n, err := readAll(in, b)
	if err != nil {
		return err
	}
	r, err := parse(b[:n])
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(min(runtime.NumCPU(), int(r.Lanes)))
	key := argon2.IDKey(r.pass, r.salt, r.Time, r.Memory, uint8(r.Lanes), KeySize)
	result[0] = answerKey
	copy(result[1:], key)
	clear(key)
	return writeAll(out, result)
}

// readAll fills b until the end of what comes, or until it is full, which is longer than any request.
func readAll(fd int, b []byte) (n int, err error) {
	for n < len(b) {
		m, err := unix.Read(fd, b[n:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || m == 0 {
			return n, err
		}
		n += m
	}
	return n, nil
}

func writeAll(fd int, b []byte) error {
	for len(b) > 0 {
		n, err := unix.Write(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return fmt.Errorf("child: answering: %w", err)
		}
		b = b[n:]
	}
	return nil
}
