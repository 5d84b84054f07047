package control

import (
	"context"
	"time"
)

// Project is what `project show` prints.
type Project struct {
	Name string `json:"name"`
	// Granted tells whether it may use encryption in this region.
	Granted          bool `json:"granted"`
	EncryptByDefault bool `json:"encrypt_by_default"`
	// DefaultKey is what disks are under that name no key; null as long as there is none.
	DefaultKey *DiskKey `json:"default_key"`
	// By and Created tell who made it; the project default was made by nobody.
	By      string     `json:"by"`
	Created *time.Time `json:"created"`
	// Warnings say what still keeps it from having an effect.
	Warnings []string `json:"warnings,omitempty"`
}

// ProjectCreate asks for a new project.
type ProjectCreate struct {
	Name string `json:"name"`
}

// ProjectSet asks for other attributes; nil is for what stays.
type ProjectSet struct {
	EncryptByDefault *bool   `json:"encrypt_by_default,omitempty"`
	DefaultKey       *string `json:"default_key,omitempty"`
}

// Role is one role of one user in one project, as `role list` prints it.
type Role struct {
	User    string `json:"user"`
	UID     uint32 `json:"uid"`
	Project string `json:"project"`
	Role    string `json:"role"`
	// Warnings say what a person should know after the call that gave it.
	Warnings []string `json:"warnings,omitempty"`
}

// RoleChange asks for a role to be granted or revoked. User is a name or a uid.
type RoleChange struct {
	User string `json:"user"`
	Role string `json:"role"`
}

// KeyGrant is one grant of a key to one user, as `key grants` prints it.
type KeyGrant struct {
	ID        string    `json:"id"`
	Key       string    `json:"key"`
	Project   string    `json:"project"`
	User      string    `json:"user"`
	UID       uint32    `json:"uid"`
	Operation string    `json:"operation"`
	By        string    `json:"by"`
	Created   time.Time `json:"created"`
	Warnings  []string  `json:"warnings,omitempty"`
}

// KeyGrantCreate asks for one. User is a name or a uid.
type KeyGrantCreate struct {
	User      string `json:"user"`
	Operation string `json:"operation"`
}

// KeyGrantEnd names the grant that is revoked or retired.
type KeyGrantEnd struct {
	Grant string `json:"grant"`
}

// ProjectCreate makes a project.
func (c *Client) ProjectCreate(ctx context.Context, name string) (Project, error) {
	return ask[Project](ctx, c, call{route: RouteProjectCreate, body: ProjectCreate{name}})
}

// ProjectList lists the projects that the caller may see.
func (c *Client) ProjectList(ctx context.Context) ([]Project, error) {
	return ask[[]Project](ctx, c, call{route: RouteProjectList})
}

// ProjectShow tells about one project.
func (c *Client) ProjectShow(ctx context.Context, name string) (Project, error) {
	return ask[Project](ctx, c, call{route: RouteProjectShow, name: name})
}

// ProjectSet changes a project.
func (c *Client) ProjectSet(ctx context.Context, name string, set ProjectSet) (Project, error) {
	return ask[Project](ctx, c, call{route: RouteProjectSet, name: name, body: set})
}

// ProjectDelete deletes an empty project; yes confirms it.
func (c *Client) ProjectDelete(ctx context.Context, name string, yes bool) error {
	return c.do(ctx, call{route: RouteProjectDelete, name: name, query: flags(QueryYes, yes)}, nil)
}

// RoleGrant gives a user a role in the project.
func (c *Client) RoleGrant(ctx context.Context, user, role string) (Role, error) {
	return ask[Role](ctx, c, call{route: RouteRoleGrant, body: RoleChange{user, role}})
}

// RoleList lists who has which role in the project.
func (c *Client) RoleList(ctx context.Context) ([]Role, error) {
	return ask[[]Role](ctx, c, call{route: RouteRoleList})
}

// RoleRevoke takes a role back.
func (c *Client) RoleRevoke(ctx context.Context, user, role string) error {
	return c.do(ctx, call{route: RouteRoleRevoke, body: RoleChange{user, role}}, nil)
}

// KeyGrant lets a user do one thing with one key.
func (c *Client) KeyGrant(ctx context.Context, key, user, operation string) (KeyGrant, error) {
	return ask[KeyGrant](ctx, c, call{route: RouteKeyGrant, name: key, body: KeyGrantCreate{user, operation}})
}

// KeyGrants lists the grants of a key: all of them to who may see them, else the caller's own.
func (c *Client) KeyGrants(ctx context.Context, key string) ([]KeyGrant, error) {
	return ask[[]KeyGrant](ctx, c, call{route: RouteKeyGrants, name: key})
}

// KeyGrantRevoke takes a grant back.
func (c *Client) KeyGrantRevoke(ctx context.Context, key, grant string) error {
	return c.do(ctx, call{route: RouteKeyGrantRevoke, name: key, body: KeyGrantEnd{grant}}, nil)
}

// KeyGrantRetire gives one's own grant back.
func (c *Client) KeyGrantRetire(ctx context.Context, key, grant string) error {
	return c.do(ctx, call{route: RouteKeyGrantRetire, name: key, body: KeyGrantEnd{grant}}, nil)
}
