package control

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"

	"github.com/google/uuid"

	"nbdcrypt/pkg/refusal"
)

// HeaderSize is how many bytes of ciphertext an export has.
const HeaderSize = "X-Size"

// maxEscrowLine bounds the first line of an export.
const maxEscrowLine = 4096

// DiskExport exports a disk's ciphertext: begin gets the key to it and how long it is, and returns where it goes. yes confirms it.
func (c *Client) DiskExport(ctx context.Context, disk string, yes bool, begin func(Escrow, int64) (io.Writer, error)) error {
	answer, err := c.download(ctx, call{route: RouteDiskExport, name: disk, query: flags(QueryYes, yes)})
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	return c.takeExport(ctx, answer, begin)
}

// download makes a call whose answer is no JSON. What is no success is an error; else the caller closes the body.
func (c *Client) download(ctx context.Context, cl call) (*http.Response, error) {
	request, err := c.request(ctx, uuid.NewString(), cl)
	if err != nil {
		return nil, err
	}
	answer, err := c.http.Do(request)
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	if answer.StatusCode == http.StatusOK {
		return answer, nil
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer))
	if err != nil {
		return nil, c.failed(ctx, err)
	}
	return nil, answered(answer.StatusCode, body)
}

func (c *Client) takeExport(ctx context.Context, answer *http.Response, begin func(Escrow, int64) (io.Writer, error)) error {
	var key Escrow
	size, err := strconv.ParseInt(answer.Header.Get(HeaderSize), 10, 64)
	if err != nil {
		return fmt.Errorf("control: the daemon does not say how long the export is: %w", err)
	}
	body := bufio.NewReaderSize(answer.Body, maxEscrowLine)
	line, err := body.ReadSlice('\n')
	if err != nil {
		return c.failed(ctx, err)
	}
	if err := json.Unmarshal(line, &key); err != nil {
		return fmt.Errorf("control: reading the daemon's answer: %w", err)
	}
	w, err := begin(key, size)
	if err != nil {
		return err
	}
	if _, err = io.CopyN(w, body, size); err != nil && (broken(err) || ctx.Err() != nil) {
		return refusal.New(refusal.Failed, "see the daemon's log, then export again", "the export broke off: %w", err)
	}
	return err
}
