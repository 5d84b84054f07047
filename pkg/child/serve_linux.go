package child

import (
	"encoding/binary"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/secret"
)

// serve is the child: a request from in, an answer to out.
func serve(word string, in, out int) {
	err := hide()
	if err == nil {
		err = answer(word, in, out)
	}
	if err != nil {
		_ = writeAll(out, append([]byte{max(classFailed, classOf(err))}, err.Error()...))
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

func answer(word string, in, out int) error {
	op, err := operationOf(word)
	if err != nil {
		return err
	}
	mem, err := secret.Work(op.request+1+answerHead+op.answer, secret.Purpose{Kind: "child", For: "one " + op.word})
	if err != nil {
		return err
	}
	defer mem.Destroy()
	request, result := mem.Bytes()[:op.request+1], mem.Bytes()[op.request+1:]
	n, err := readAll(in, request)
	if err != nil {
		return err
	}
	if n, err = op.do(request[:n], result[answerHead:]); err != nil {
		return err
	}
	result[0] = answerResult
	binary.BigEndian.PutUint32(result[1:], uint32(n))
	return writeAll(out, result[:answerHead+n])
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
