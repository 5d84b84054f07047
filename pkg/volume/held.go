package volume

import (
	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// held tells what keeps a disk or an image from being deleted, as Config.Held does; nil for nothing.
type held func(r catalog.Reader, kind string, id uuid.UUID) error

func (h held) ask(r catalog.Reader, kind string, id uuid.UUID) error {
	if h == nil {
		return nil
	}
	return h(r, kind, id)
}

// MayHold refuses a disk or an image that is not there, is half there, or is just being deleted. Whoever makes Held tell of one asks it in the commit
// that does so: either that or the deletion comes first, and the other one knows.
func (s *Service) MayHold(r catalog.Reader, project, kind string, id uuid.UUID) error {
	if kind != HolderKind {
		p, err := findPoint(r, kind, project, id.String())
		if err != nil {
			return explainPoint(kind, id.String(), err)
		}
		return p.whole()
	}
	d, err := s.find(r, project, id.String())
	if err != nil {
		return explain(id.String(), err)
	}
	if now := s.status(d); now == Deleting || d.Status != Available {
		return refusal.New(refusal.Busy, "wait until that is done, then try again", "disk %s is %s", d.Name, now)
	}
	return nil
}
