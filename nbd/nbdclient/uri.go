package nbdclient

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
)

// Target is where an export is.
type Target struct {
	Socket string
	Export string
}

// ParseURI reads nbd+unix:///EXPORT?socket=PATH, the form that attach prints.
func ParseURI(uri string) (Target, error) {
	u, err := url.Parse(uri)
	if err != nil {
		return Target{}, fmt.Errorf("nbdclient: %w", err)
	}
	if u.Scheme != "nbd+unix" || u.Host != "" {
		return Target{}, errors.New("nbdclient: the URI is not nbd+unix:///EXPORT?socket=PATH")
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return Target{}, fmt.Errorf("nbdclient: %w", err)
	}
	if query.Get("socket") == "" {
		return Target{}, errors.New("nbdclient: the URI names no socket")
	}
	return Target{Socket: query.Get("socket"), Export: strings.TrimPrefix(u.Path, "/")}, nil
}
