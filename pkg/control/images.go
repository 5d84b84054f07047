package control

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"nbdcrypt/pkg/refusal"
)

// ImageCreate asks for an image of a disk, or of a server's system disk, as that is at this moment. Encrypted and Key may be named, and have to be the disk's then.
type ImageCreate struct {
	Name      string `json:"name"`
	Disk      string `json:"disk,omitempty"`
	Server    string `json:"server,omitempty"`
	Encrypted *bool  `json:"encrypted,omitempty"`
	Key       string `json:"key,omitempty"`
}

// ImageUpload asks for an image of what is sent with it. Encrypted is nil where the caller left the choice open; Size is 0 where the end
// of the data tells.
type ImageUpload struct {
	Name       string
	Size       int64
	SectorSize int // 0 for 512
	Encrypted  *bool
	Key        string
}

// ImageCopy asks for another image with the data of one, under another key, or under none where Encrypted is false. Where both are left
// out it is under the same key, in a layer of its own.
type ImageCopy struct {
	Name      string `json:"name"`
	Encrypted *bool  `json:"encrypted,omitempty"`
	Key       string `json:"key,omitempty"`
}

// Image is what `image show` prints.
type Image struct {
	ID         string   `json:"id"`
	Name       string   `json:"name"`
	Project    string   `json:"project"`
	Size       int64    `json:"size"`
	SectorSize int      `json:"sector_size"`
	Encrypted  bool     `json:"encrypted"`
	Key        *DiskKey `json:"key"`
	Status     string   `json:"status"`
	// Source is the disk or the image that it was made of; of a file there is its kind alone.
	Source   *DiskSource `json:"source"`
	Created  time.Time   `json:"created"`
	Warnings []string    `json:"warnings,omitempty"`
}

// The names of what an ImageUpload says in its query.
const (
	querySize      = "size"
	querySector    = "sector_size"
	queryEncrypted = "encrypted"
	queryKey       = "key"
)

func (u ImageUpload) query() url.Values {
	q := url.Values{QueryName: {u.Name}}
	if u.Size > 0 {
		q.Set(querySize, strconv.FormatInt(u.Size, 10))
	}
	if u.SectorSize > 0 {
		q.Set(querySector, strconv.Itoa(u.SectorSize))
	}
	if u.Encrypted != nil {
		q.Set(queryEncrypted, strconv.FormatBool(*u.Encrypted))
	}
	if u.Key != "" {
		q.Set(queryKey, u.Key)
	}
	return q
}

// ParseImageUpload reads it back.
func ParseImageUpload(q url.Values) (u ImageUpload, err error) {
	u = ImageUpload{Name: q.Get(QueryName), Key: q.Get(queryKey)}
	if text := q.Get(querySize); text != "" {
		if u.Size, err = strconv.ParseInt(text, 10, 64); err != nil || u.Size <= 0 {
			return u, refusal.New(refusal.Usage, "give a number of bytes above 0", "%.40q is no size", text)
		}
	}
	if text := q.Get(querySector); text != "" {
		if u.SectorSize, err = strconv.Atoi(text); err != nil {
			return u, refusal.New(refusal.Usage, "use 512 or 4096", "%.40q is no sector size", text)
		}
	}
	if text := q.Get(queryEncrypted); text != "" {
		yes, err := strconv.ParseBool(text)
		if err != nil {
			return u, refusal.New(refusal.Usage, "say true or false", "%.40q does not say whether to encrypt", text)
		}
		u.Encrypted = &yes
	}
	return u, nil
}

// ImageCreate makes an image of a disk.
func (c *Client) ImageCreate(ctx context.Context, image ImageCreate) (Image, error) {
	return ask[Image](ctx, c, call{route: RouteImageCreate, body: image})
}

// ImageUpload makes an image of what send sends; it ends by saying how much that was.
func (c *Client) ImageUpload(ctx context.Context, image ImageUpload, send func(*FrameWriter) error) (out Image, err error) {
	err = c.upload(ctx, call{route: RouteImageUpload, query: image.query()}, send, &out)
	return out, err
}

// ImageCopy makes another image of an image.
func (c *Client) ImageCopy(ctx context.Context, image string, to ImageCopy) (Image, error) {
	return ask[Image](ctx, c, call{route: RouteImageCopy, name: image, body: to})
}

// ImageList lists the project's images.
func (c *Client) ImageList(ctx context.Context) ([]Image, error) {
	return ask[[]Image](ctx, c, call{route: RouteImageList})
}

// ImageShow tells about one image.
func (c *Client) ImageShow(ctx context.Context, image string) (Image, error) {
	return ask[Image](ctx, c, call{route: RouteImageShow, name: image})
}

// ImageDelete deletes an image; yes confirms it.
func (c *Client) ImageDelete(ctx context.Context, image string, yes bool) error {
	return c.do(ctx, call{route: RouteImageDelete, name: image, query: flags(QueryYes, yes)}, nil)
}
