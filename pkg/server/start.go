package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// finishAll ends what a crash cut off: servers, configurations and groups that were half made or half gone. Each is a step that can be cut off again. What
// can't be read, or done now, is told by Unreadable, and stays.
func (s *Service) finishAll(ctx context.Context) error {
	return errors.Join(
		finish(ctx, s, servers, s.endServer),
		finish(ctx, s, configs, s.endConfig),
		finish(ctx, s, groups, s.endGroup))
}

// finish calls end with those that are not as they rest.
func finish[T recorded](ctx context.Context, s *Service, k kind[T], end func(context.Context, T) (done string, err error)) error {
	list, err := unfinished(ctx, s, k)
	for _, v := range list {
		if err != nil {
			break
		}
		h := v.common()
		s.c.Log.Warn("finishing what was cut off", k.prefix, h.Name, "status", h.Status)
		done, failed := end(ctx, v)
		var r *refusal.Error
		if isDamage(failed) || errors.As(failed, &r) {
			s.unreadable = append(s.unreadable, fmt.Errorf("%s %s can't be cleaned up: %w", k.word, h.Name, failed))
		} else if failed != nil {
			err = fmt.Errorf("server: clean up %s %s: %w", k.word, h.Name, failed)
		} else {
			s.finished = append(s.finished, done)
		}
	}
	return err
}

// unfinished are those that a crash may have left half made, half deleted or half scaled. The others, which may be very many, are told by the text of their status: in a record
// a quotation mark within a text has a backslash before it.
func unfinished[T recorded](ctx context.Context, s *Service, k kind[T]) (list []T, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, k.prefix+"/", func(p catalog.Pair, err error) error {
			if err == nil && rests(p.Value) {
				return nil
			}
			var v T
			if err == nil {
				v, err = k.parse(p.Key, p.Value)
			}
			if err != nil {
				s.unreadable = append(s.unreadable, err)
			} else {
				list = append(list, v)
			}
			return nil
		})
	})
	return list, err
}

func rests(record []byte) bool {
	for _, status := range []Status{Stopped, Available} {
		if bytes.Contains(record, []byte(`"status":"`+string(status)+`"`)) {
			return !bytes.Contains(record, []byte(`"scaling":`))
		}
	}
	return false
}

func (s *Service) endServer(ctx context.Context, r serverRecord) (string, error) {
	return fmt.Sprintf("server %s/%s, which was %s, is deleted", r.Project, r.Name, r.Status), s.remove(ctx, r)
}

func (s *Service) endConfig(ctx context.Context, rec configRecord) (string, error) {
	_, err := s.removeConfig(ctx, "remove-"+uuid.NewString(), rec)
	return fmt.Sprintf("scaling configuration %s/%s, which was %s, is deleted", rec.Project, rec.Name, rec.Status), err
}

func (s *Service) endGroup(ctx context.Context, g groupRecord) (string, error) {
	what := "scaling group " + g.Project + "/" + g.Name
	if g.Status != Available {
		return fmt.Sprintf("%s, which was %s, is deleted with its servers", what, g.Status), s.removeGroup(ctx, g)
	}
	if g.Scaling == nil {
		return what, nil
	}
	did := "that were to leave it are deleted"
	if g.Scaling.Grows {
		did = "that were being made for it are deleted"
	}
	_, err := s.settle(ctx, g)
	return fmt.Sprintf("%s: its scaling was cut off, and the servers %s", what, did), err
}
