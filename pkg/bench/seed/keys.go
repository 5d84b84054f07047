package seed

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
)

// by made everything.
const by = "bench"

// keys makes the projects and their keys, a slate for each project.
func (s *seeder) keys(ctx context.Context) (err error) {
	on := &slate{}
	keys, sealed, err := s.open(ctx, on)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, keys.Close()) }()
	for i := range s.o.Projects {
		if err := on.wipe(ctx, s); err != nil {
			return err
		}
		if err := makeProject(ctx, sealed, Project(i)); err != nil {
			return err
		}
		if _, _, err := keys.Grant(ctx, "grant", Project(i), by); err != nil {
			return err
		}
		for n := range s.o.Keys - 1 { // the first is the default key
			if _, err := keys.CreateKey(ctx, fmt.Sprint("key-", n), Project(i), keystore.KeySpec{Alias: fmt.Sprint("key-", n)}); err != nil {
				return err
			}
		}
		if err := s.gather(ctx, on); err != nil {
			return err
		}
	}
	return nil
}

func makeProject(ctx context.Context, sealed catalog.Store, name string) error {
	b, err := json.Marshal(map[string]any{"v": 1, "name": name, "by": by, "created": time.Now().UTC()})
	if err != nil {
		return err
	}
	return sealed.Update(ctx, "project", func(t catalog.Txn) error { return t.Put("project/"+name, b) })
}
