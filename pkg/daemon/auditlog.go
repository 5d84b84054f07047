package daemon

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"time"

	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/audit"
	"nbdcrypt/pkg/control"
)

// auditList answers with the records that the caller may see: those of the project, and in the project default those of all projects, and
// what is about none. Its own record is not among them.
func (d *Daemon) auditList(c *call) (any, error) {
	ask, err := control.ParseAuditFilter(c.http.URL.Query())
	if err != nil {
		return nil, err
	}
	f := audit.Filter{Since: ask.Since, Until: ask.Until, Verb: ask.Verb, User: ask.User, Outcome: ask.Outcome, Limit: ask.Limit}
	if c.project != control.DefaultProject {
		f.Project = c.project
	}
	may := func() error {
		return d.access.Check(context.WithoutCancel(c.ctx), c.caller, access.AuditList, c.project)
	}
	return &recordStream{d, d.log.Snapshot(), f, ask.Follow, may}, nil
}

// auditHead tells the end of the log, before the record of this call.
func (d *Daemon) auditHead(*call) (any, error) {
	head, when := d.log.Snapshot().Head()
	return control.AuditHead{Seq: head.Seq, Hash: head.Hash, Time: when}, nil
}

// auditVerify starts the verification of the whole log as a job: it reads all of it.
func (d *Daemon) auditVerify(c *call) (any, error) {
	var in control.AuditVerify
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	return d.startJob(c, control.Job{Verb: "audit verify", Unit: "bytes"}, func(ctx context.Context, progress func(done, total int64)) (any, error) {
		kept, err := audit.CatalogHead(ctx, d.catalog)
		if err != nil {
			return nil, err
		}
		for _, mark := range in.Heads {
			const by = "whoever kept a head elsewhere"
			kept[by] = append(kept[by], audit.Head(mark))
		}
		v, err := d.log.Verify(ctx, kept, progress)
		if err != nil {
			return nil, err
		}
		return control.AuditVerified{Records: v.Head.Seq, Bytes: v.Bytes, Heads: len(in.Heads),
			Head: control.AuditHead{Seq: v.Head.Seq, Hash: v.Head.Hash, Time: v.Time}}, nil
	})
}

// recordStream is an answer that is written while it is read: a log may be larger than memory.
type recordStream struct {
	daemon *Daemon
	from   audit.Snapshot
	filter audit.Filter
	follow bool
	// may refuses who has lost the right since: what comes later is not for him.
	may func() error
}

// recordTime is what a caller may take to read what is sent at a time.
const recordTime = 10 * time.Second

// ServeHTTP implements http.Handler.
func (s *recordStream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := bufio.NewWriterSize(&steady{w, http.NewResponseController(w)}, 64<<10)
	err := s.send(r.Context(), out)
	if s.daemon.life.Err() != nil {
		err = errStopping()
	}
	if err != nil {
		_ = json.NewEncoder(out).Encode(control.ErrorBody{Error: control.ErrorOf(err)}) // who has gone does not read it
	}
	_ = out.Flush()
}

// send writes the records, a line each.
func (s *recordStream) send(ctx context.Context, out *bufio.Writer) error {
	ctx, leave := context.WithCancel(ctx)
	defer leave()
	defer context.AfterFunc(s.daemon.life, leave)()
	emit := func(line []byte) error {
		_, err := out.Write(line)
		if err == nil {
			err = out.WriteByte('\n')
		}
		return err
	}
	if err := s.from.List(ctx, s.filter, emit); err != nil || !s.follow {
		return err
	}
	later := func(line []byte) error {
		if err := s.may(); err != nil {
			return err
		}
		return emit(line)
	}
	return s.from.Follow(ctx, s.filter, later, out.Flush)
}

// steady sends what it is given at once, and gives its reader time for it.
type steady struct {
	io.Writer
	conn *http.ResponseController
}

// Write implements io.Writer.
func (s *steady) Write(b []byte) (int, error) {
	_ = s.conn.SetWriteDeadline(time.Now().Add(recordTime)) // what is no connection needs none
	n, err := s.Writer.Write(b)
	if err == nil {
		_ = s.conn.Flush()
	}
	return n, err
}
