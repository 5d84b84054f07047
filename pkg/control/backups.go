package control

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"time"

	"nbdcrypt/pkg/refusal"
)

const (
	// QueryDisk asks for the snapshots or backups of one disk alone.
	QueryDisk = "disk"
	// QueryFrom is the byte that an export or import begins at.
	QueryFrom = "from"
	// QueryPublic is the public key that has to have signed what is imported, in base64.
	QueryPublic = "public"
	// HeaderFrom is the byte that an export begins at, which may be less than was asked for.
	HeaderFrom = "X-From"
)

// BackupCreate asks for a backup of a disk.
type BackupCreate struct {
	Disk string `json:"disk"`
	Name string `json:"name"`
	Full bool   `json:"full,omitempty"`
}

// Backup is what `backup show` prints.
type Backup struct {
	ID         string    `json:"id"`
	Name       string    `json:"name"`
	Project    string    `json:"project"`
	Disk       BackupOf  `json:"disk"`
	Size       int64     `json:"size"`
	SectorSize int       `json:"sector_size"`
	Encrypted  bool      `json:"encrypted"`
	Key        *DiskKey  `json:"key"`
	Status     string    `json:"status"`
	Created    time.Time `json:"created"`
	Parent     *BackupOf `json:"parent"`
	Depth      int       `json:"depth"`
	Data       int64     `json:"data"`
	Length     int64     `json:"length"`
	Store      string    `json:"store"`
	Foreign    bool      `json:"foreign"`
	Imported   bool      `json:"imported"`
	Manifest   string    `json:"manifest"`
	PublicKey  string    `json:"public_key"`
	Full       string    `json:"full,omitempty"`
	Warnings   []string  `json:"warnings,omitempty"`
}

// BackupOf is the disk that a backup is of, or the backup that it stands on. The name is empty where that is not here.
type BackupOf struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// BackupPrune asks for all backups of a disk to go but the newest Keep, and what those stand on.
type BackupPrune struct {
	Disk string `json:"disk"`
	Keep int    `json:"keep"`
}

// BackupPruned are the backups that went, the newest first.
type BackupPruned struct {
	Deleted []Backup `json:"deleted"`
}

// BackupVerified are a backup and all that it stands on, the full one first.
type BackupVerified struct {
	Backups []Backup `json:"backups"`
	// Missing are those that one of them stands on and that are not here.
	Missing []BackupOf `json:"missing"`
}

// BackupOffer asks how much is here of the backup whose file begins with Header.
type BackupOffer struct {
	Header []byte `json:"header"`
	Public []byte `json:"public,omitempty"`
}

// BackupOffered answers that: Have bytes need not be sent.
type BackupOffered struct {
	ID   string `json:"id"`
	Have int64  `json:"have"`
}

// BackupKey is what `backup key` prints.
type BackupKey struct {
	Store     string `json:"store"`
	Algorithm string `json:"algorithm"`
	// PublicKey is its 32 bytes in base64, and PEM the same as other programs read it.
	PublicKey string `json:"public_key"`
	PEM       string `json:"pem"`
}

// BackupCreate makes a backup.
func (c *Client) BackupCreate(ctx context.Context, what BackupCreate) (Backup, error) {
	return ask[Backup](ctx, c, call{route: RouteBackupCreate, body: what})
}

// BackupList lists the project's backups, or those of one disk, the oldest first.
func (c *Client) BackupList(ctx context.Context, disk string) ([]Backup, error) {
	var query url.Values
	if disk != "" {
		query = url.Values{QueryDisk: {disk}}
	}
	return ask[[]Backup](ctx, c, call{route: RouteBackupList, query: query})
}

// BackupShow tells about one backup.
func (c *Client) BackupShow(ctx context.Context, backup string) (Backup, error) {
	return ask[Backup](ctx, c, call{route: RouteBackupShow, name: backup})
}

// BackupVerify reads a backup and all that it stands on.
func (c *Client) BackupVerify(ctx context.Context, backup string) (BackupVerified, error) {
	return ask[BackupVerified](ctx, c, call{route: RouteBackupVerify, name: backup})
}

// BackupDelete deletes a backup; yes confirms it.
func (c *Client) BackupDelete(ctx context.Context, backup string, yes bool) error {
	return c.do(ctx, call{route: RouteBackupDelete, name: backup, query: flags(QueryYes, yes)}, nil)
}

// BackupPrune deletes old backups of a disk, and tells which; yes confirms it.
func (c *Client) BackupPrune(ctx context.Context, what BackupPrune, yes bool) (BackupPruned, error) {
	return ask[BackupPruned](ctx, c, call{route: RouteBackupPrune, query: flags(QueryYes, yes), body: what})
}

// BackupKey tells the public key of the store's backups.
func (c *Client) BackupKey(ctx context.Context) (BackupKey, error) {
	return ask[BackupKey](ctx, c, call{route: RouteBackupKey})
}

// BackupExport writes a backup's file from a byte on: begin gets how long the whole file is and where what comes begins, and returns where it
// goes.
func (c *Client) BackupExport(ctx context.Context, backup string, from int64, begin func(size, from int64) (io.Writer, error)) error {
	answer, err := c.download(ctx, call{route: RouteBackupExport, name: backup, query: url.Values{QueryFrom: {strconv.FormatInt(from, 10)}}})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	size, errSize := strconv.ParseInt(answer.Header.Get(HeaderSize), 10, 64)
	from, errFrom := strconv.ParseInt(answer.Header.Get(HeaderFrom), 10, 64)
	if errSize != nil || errFrom != nil || from > size {
		return fmt.Errorf("control: the daemon does not say how long the export is: %q from %q", answer.Header.Get(HeaderSize), answer.Header.Get(HeaderFrom))
	}
	w, err := begin(size, from)
	if err != nil {
		return err
	}
	n, err := io.CopyBuffer(w, io.LimitReader(answer.Body, size-from), make([]byte, maxFrame))
	if err == nil && n < size-from {
		err = io.ErrUnexpectedEOF
	}
	if err != nil && (broken(err) || ctx.Err() != nil) {
		return refusal.New(refusal.Failed, "see the daemon's log, then export again", "the export broke off at byte %d of %d: %w", from+n, size, err)
	}
	return err
}

// BackupOffer asks how much of a backup is here already.
func (c *Client) BackupOffer(ctx context.Context, offer BackupOffer) (BackupOffered, error) {
	return ask[BackupOffered](ctx, c, call{route: RouteBackupOffer, body: offer})
}

// BackupImport sends a backup: its header, and of what follows what is not there yet. rest is read to its end, which is size bytes of the file.
func (c *Client) BackupImport(ctx context.Context, offer BackupOffer, from int64, rest io.Reader, sent func(n int64)) (Backup, error) {
	query := url.Values{QueryFrom: {strconv.FormatInt(from, 10)}}
	if len(offer.Public) > 0 {
		query.Set(QueryPublic, base64.StdEncoding.EncodeToString(offer.Public))
	}
	var job json.RawMessage
	err := c.upload(ctx, call{route: RouteBackupImport, query: query}, func(f *FrameWriter) error {
		if _, err := f.Write(offer.Header); err != nil {
			return err
		}
		n, err := sendAll(f, rest, sent)
		if err != nil {
			return err
		}
		return f.End(int64(len(offer.Header)) + n)
	}, &job)
	if err != nil {
		return Backup{}, err
	}
	var b Backup
	return b, c.await(ctx, job, &b)
}

// sendAll sends what there is to read, and tells how much was sent.
func sendAll(w io.Writer, r io.Reader, sent func(n int64)) (n int64, err error) {
	buf := make([]byte, maxFrame)
	for {
		m, err := io.ReadFull(r, buf)
		if m > 0 {
			if _, failed := w.Write(buf[:m]); failed != nil {
				return n, failed
			}
			n += int64(m)
			sent(n)
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return n, nil
		default:
			return n, refusal.New(refusal.Failed, "run the command again: it goes on where it was", "the backup can't be read: %w", err)
		}
	}
}
