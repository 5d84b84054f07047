package control

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"

	"github.com/google/uuid"
)

// maxAnswer bounds what is read of one answer as a whole; lists of disks are streams.
const maxAnswer = 64 << 20

// Client asks one daemon, for one project. It may be used from many goroutines.
type Client struct {
	socket  string
	project string
	watch   func(Job)
	http    *http.Client
}

// New returns a client of the daemon that listens on a unix socket. Nothing is dialled before the first call.
func New(socket string) *Client {
	return &Client{
		socket: socket, project: DefaultProject, watch: func(Job) {},
		http: newHTTP(func(ctx context.Context) (net.Conn, error) { return dial(ctx, socket) }),
	}
}

func dial(ctx context.Context, socket string) (net.Conn, error) {
	return new(net.Dialer).DialContext(ctx, "unix", socket)
}

func newHTTP(dial func(context.Context) (net.Conn, error)) *http.Client {
	transport := &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
		// A connection a call: then a broken one is always this call's own, and we alone decide to ask again.
		DisableKeepAlives:     true,
		ExpectContinueTimeout: continueTime,
	}
	asIs := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &http.Client{Transport: transport, CheckRedirect: asIs}
}

// In returns a client of the same daemon for another project.
func (c *Client) In(project string) *Client {
	other := *c
	other.project = project
	return &other
}

// Watching returns a client that tells watch how the jobs get on that its calls wait for.
func (c *Client) Watching(watch func(Job)) *Client {
	other := *c
	other.watch = watch
	return &other
}

// Tell tells the watcher how work gets on that is done here, as if it were a job.
func (c *Client) Tell(job Job) { c.watch(job) }

// call is one call: a route, what stands for its wildcard, and what goes with it.
type call struct {
	route string
	name  string
	query url.Values
	body  any
}

// do makes a call and decodes its answer. Where the connection breaks before the answer is whole it asks once more
// under the same request id: the daemon knows by it whether the change was made already.
func (c *Client) do(ctx context.Context, cl call, out any) error {
	id := uuid.NewString()
	status, body, err := c.send(ctx, id, cl)
	if err != nil && broken(err) && ctx.Err() == nil {
		status, body, err = c.send(ctx, id, cl)
	}
	switch {
	case err != nil:
		return c.failed(ctx, err)
	case status == http.StatusAccepted:
		return c.await(ctx, body, out)
	case status < 200 || status > 299:
		return answered(status, body)
	}
	return decode(body, out)
}

func (c *Client) send(ctx context.Context, id string, cl call) (int, []byte, error) {
	answer, err := c.ask(ctx, id, cl)
	if err != nil {
		return 0, nil, err
	}
	defer answer.Body.Close()
	body, err := whole(answer)
	return answer.StatusCode, body, err
}

func (c *Client) ask(ctx context.Context, id string, cl call) (*http.Response, error) {
	request, err := c.request(ctx, id, cl)
	if err != nil {
		return nil, err
	}
	return c.http.Do(request)
}

// whole reads all of an answer.
func whole(answer *http.Response) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(answer.Body, maxAnswer+1))
	if err == nil && len(body) > maxAnswer {
		err = fmt.Errorf("the answer is longer than %d bytes", maxAnswer)
	}
	return body, err
}

func (c *Client) request(ctx context.Context, id string, cl call) (*http.Request, error) {
	var body io.Reader
	if cl.body != nil {
		text, err := json.Marshal(cl.body)
		if err != nil {
			return nil, err
		}
		body = bytes.NewReader(text)
	}
	method, target := cl.target(c.project)
	request, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, err
	}
	request.Header.Set(HeaderRequest, id)
	return request, nil
}

// target puts the name into the route. Dots are escaped too: "." and ".." would be taken for steps in the path.
func (cl call) target(project string) (method, target string) {
	method, path, _ := strings.Cut(cl.route, " ")
	if before, after, found := strings.Cut(path, "{"); found {
		_, after, _ = strings.Cut(after, "}")
		path = before + strings.ReplaceAll(escape(cl.name, ""), ".", "%2E") + after
	}
	query := url.Values{QueryProject: {project}}
	for name, values := range cl.query {
		query[name] = values
	}
	return method, "http://nbdcrypt" + path + "?" + query.Encode()
}

// decode reads an answer; fields that a newer daemon adds are no error. Numbers in a job's result keep every digit.
func decode(body []byte, out any) error {
	if out == nil {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(body))
	decoder.UseNumber()
	if err := decoder.Decode(out); err != nil {
		return fmt.Errorf("control: reading the daemon's answer: %w", err)
	}
	return nil
}
