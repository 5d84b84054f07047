package demo

import "path/filepath"

func (t *tour) path(names ...string) string {
	return filepath.Join(append([]string{t.dir}, names...)...)
}
