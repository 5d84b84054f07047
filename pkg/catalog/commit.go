package catalog

import (
	"context"
	"errors"
)

// Commit is Update with an answer wherever there is one: where the outcome is unknown it asks, and tries again. An error
// that wraps ErrUnknownOutcome means that even asking failed; what the commit was for must then be left as it is.
func Commit(ctx context.Context, s Store, request string, fn func(Txn) error) error {
	for {
		err := s.Update(ctx, request, fn)
		if !errors.Is(err, ErrUnknownOutcome) {
			return err
		}
		done, askErr := s.Outcome(ctx, request)
		if askErr != nil {
			return errors.Join(err, askErr)
		}
		if done {
			return nil
		}
	}
}
