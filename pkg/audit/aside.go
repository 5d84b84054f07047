package audit

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"nbdcrypt/pkg/durable"
)

// SetAside gives a damaged log and its head other names, under which nothing reads them, so that another log can be begun. It answers the
// log's new name.
func SetAside(path string, now time.Time) (string, error) {
	mark := ".damaged-" + now.UTC().Format("20060102T150405.000000000Z")
	for _, file := range []string{path, filepath.Join(filepath.Dir(path), HeadFile)} {
		if err := os.Rename(file, file+mark); err != nil && !errors.Is(err, os.ErrNotExist) {
			return "", fmt.Errorf("audit: %w", err)
		}
	}
	return path + mark, durable.Dir(filepath.Dir(path))
}
