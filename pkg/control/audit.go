package control

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// What RouteAuditList is asked with. Times are RFC 3339.
const (
	QuerySince   = "since"
	QueryUntil   = "until"
	QueryVerb    = "verb"
	QueryUser    = "user"
	QueryOutcome = "outcome"
	QueryLimit   = "limit"
	QueryFollow  = "follow"
)

// AuditRecord is one record of the audit log (docs/keystore-format.md).
type AuditRecord struct {
	Seq      uint64    `json:"seq"`
	Time     time.Time `json:"time"`
	Request  string    `json:"request"`
	UID      uint32    `json:"uid"`
	User     string    `json:"user"`
	PID      int32     `json:"pid"`
	Verb     string    `json:"verb"`
	Project  string    `json:"project"`
	Resource string    `json:"resource"`
	Outcome  string    `json:"outcome"`
	Code     int       `json:"code"`
	Message  string    `json:"message"`
	Key      string    `json:"key,omitempty"`
	KeyID    string    `json:"key_id,omitempty"`
	Catalog  uint64    `json:"catalog"`
	Prev     string    `json:"prev"`
	Hash     string    `json:"hash"`
}

// AuditHead is the end of the audit log: whoever keeps it elsewhere can tell later that what was before it is as it was.
type AuditHead struct {
	Seq  uint64    `json:"seq"`
	Hash string    `json:"hash"`
	Time time.Time `json:"time"`
}

// AuditVerify asks for the whole log to be verified, against heads that were kept elsewhere too.
type AuditVerify struct {
	Heads []AuditMark `json:"heads,omitempty"`
}

// AuditMark is a head that somebody kept.
type AuditMark struct {
	Seq  uint64 `json:"seq"`
	Hash string `json:"hash"`
}

// AuditVerified is what `audit verify` prints. Heads is how many heads that were kept elsewhere the log has.
type AuditVerified struct {
	Records uint64    `json:"records"`
	Bytes   int64     `json:"bytes"`
	Heads   int       `json:"heads"`
	Head    AuditHead `json:"head"`
}

// AuditFilter says which records are wanted; what is empty is not asked for.
type AuditFilter struct {
	Since, Until        time.Time
	Verb, User, Outcome string
	Limit               int
	Follow              bool
}

func (f AuditFilter) query() url.Values {
	query := url.Values{}
	for name, value := range map[string]string{QueryVerb: f.Verb, QueryUser: f.User, QueryOutcome: f.Outcome} {
		if value != "" {
			query.Set(name, value)
		}
	}
	for name, when := range map[string]time.Time{QuerySince: f.Since, QueryUntil: f.Until} {
		if !when.IsZero() {
			query.Set(name, when.Format(time.RFC3339Nano))
		}
	}
	if f.Limit > 0 {
		query.Set(QueryLimit, strconv.Itoa(f.Limit))
	}
	if f.Follow {
		query.Set(QueryFollow, "true")
	}
	return query
}

// ParseAuditFilter reads the filter of a call.
func ParseAuditFilter(query url.Values) (f AuditFilter, err error) {
	f = AuditFilter{Verb: query.Get(QueryVerb), User: query.Get(QueryUser), Outcome: query.Get(QueryOutcome), Follow: query.Get(QueryFollow) == "true"}
	for name, when := range map[string]*time.Time{QuerySince: &f.Since, QueryUntil: &f.Until} {
		if text := query.Get(name); text != "" {
			if *when, err = time.Parse(time.RFC3339, text); err != nil {
				return f, refusal.New(refusal.Usage, "write it as 2026-01-02T15:04:05Z", "%s=%.50q is no time", name, text)
			}
		}
	}
	if text := query.Get(QueryLimit); text != "" {
		if f.Limit, err = strconv.Atoi(text); err != nil || f.Limit < 1 {
			return f, refusal.New(refusal.Usage, "write a number from 1 on", "%s=%.50q is no limit", QueryLimit, text)
		}
	}
	return f, nil
}

// AuditHead tells the end of the audit log.
func (c *Client) AuditHead(ctx context.Context) (AuditHead, error) {
	return ask[AuditHead](ctx, c, call{route: RouteAuditHead})
}

// AuditVerify verifies the audit log.
func (c *Client) AuditVerify(ctx context.Context, heads []AuditMark) (AuditVerified, error) {
	return ask[AuditVerified](ctx, c, call{route: RouteAuditVerify, body: AuditVerify{heads}})
}

// AuditList hands the records that are wanted to each, one at a time: however long the log is, none of it is kept. With Follow it goes on
// until ctx ends.
func (c *Client) AuditList(ctx context.Context, f AuditFilter, each func(AuditRecord) error) error {
	request, err := c.request(ctx, uuid.NewString(), call{route: RouteAuditList, query: f.query()})
	if err != nil {
		return err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return c.failed(ctx, err)
	}
	defer answer.Body.Close()
	lines := json.NewDecoder(answer.Body)
	if answer.StatusCode != http.StatusOK {
		var refused json.RawMessage
		_ = lines.Decode(&refused)
		return answered(answer.StatusCode, refused)
	}
	for lines.More() {
		var line struct {
			AuditRecord
			ErrorBody
		}
		if err := lines.Decode(&line); err != nil {
			break
		}
		if line.Error != nil {
			return line.Error.Refusal()
		}
		if err := each(line.AuditRecord); err != nil {
			return err
		}
	}
	return c.listEnd(ctx, f, lines)
}

// listEnd tells how a list ended: More hides what the connection said.
func (c *Client) listEnd(ctx context.Context, f AuditFilter, lines *json.Decoder) error {
	if ctx.Err() != nil && f.Follow {
		return nil
	}
	_, err := lines.Token()
	if err == nil {
		err = errors.New("it is no list of records")
	}
	if err == io.EOF {
		return nil
	}
	return c.failed(ctx, err)
}
