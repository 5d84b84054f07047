package cli

import (
	"fmt"
	"net"
	"os"
	"time"
)

// voice tells what a keeper has to say without ever waiting for whoever listens: he may himself wait for the device that is to be kept.
// What he can't take is lost.
type voice struct {
	words chan string
	ended chan struct{}
}

const (
	// voiceRoom is how many words may wait.
	voiceRoom = 64
	// lastWords is how long the last may take.
	lastWords = time.Second
)

func newVoice(write func(string)) *voice {
	v := &voice{words: make(chan string, voiceRoom), ended: make(chan struct{})}
	go func() {
		defer close(v.ended)
		for text := range v.words {
			write(text)
		}
	}()
	return v
}

func (v *voice) say(format string, args ...any) {
	select {
	case v.words <- fmt.Sprintf(format, args...):
	default:
	}
}

// close gives the last words their time. Nothing is said after it.
func (v *voice) close() {
	close(v.words)
	select {
	case <-v.ended:
	case <-time.After(lastWords):
	}
}

// toSyslog sends a line to the system's log, as daemon.notice (RFC 3164, section 4.1.1).
func toSyslog(text string) {
	conn, err := net.Dial("unixgram", "/dev/log")
	if err != nil {
		return // there is none
	}
	defer conn.Close()
	_ = conn.SetWriteDeadline(time.Now().Add(lastWords))
	_, _ = fmt.Fprintf(conn, "<29>nbdcrypt[%d]: %s", os.Getpid(), text)
}
