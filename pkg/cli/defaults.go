package cli

import (
	"path/filepath"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/token"
)

// Env is what the default paths depend on.
type Env struct {
	Getenv func(name string) string
	UID    int
}

// place is where one thing lies unless a flag says so: in a variable's path, else in a fixed place for root and under an
// XDG directory for everybody else.
type place struct {
	flag, variable string
	root           string
	xdg, home      string // the XDG variable, and what it defaults to under $HOME; empty: to nothing
	under          string // the path below the XDG directory
}

func statePlace() place {
	return place{"--state", "NBDCRYPT_STATE", "/var/lib/nbdcrypt", "XDG_STATE_HOME", ".local/state", "nbdcrypt"}
}

func runPlace() place {
	return place{"--run", "NBDCRYPT_RUN", "/run/nbdcrypt", "XDG_RUNTIME_DIR", "", "nbdcrypt"}
}

func rootKeyPlace() place {
	return place{"--root-key", "NBDCRYPT_ROOT_KEY", "/etc/nbdcrypt/root.key", "XDG_CONFIG_HOME", ".config", "nbdcrypt/root.key"}
}

// absolute is the place that somebody named. A root key may be one on a token, which is no path.
func (p place) absolute(named string) (string, error) {
	if p == rootKeyPlace() && token.IsURI(named) {
		return named, nil
	}
	return filepath.Abs(named)
}

// path finds a place. An empty variable counts as unset, and so does an XDG variable whose path is relative (XDG Base
// Directory Specification, "All paths set in these environment variables must be absolute").
func (e Env) path(p place, flag string) (string, error) {
	if flag != "" {
		return p.absolute(flag)
	}
	if set := e.Getenv(p.variable); set != "" {
		return p.absolute(set)
	}
	if e.UID == 0 {
		return p.root, nil
	}
	if dir := e.Getenv(p.xdg); filepath.IsAbs(dir) {
		return filepath.Join(dir, p.under), nil
	}
	if home := e.Getenv("HOME"); p.home != "" && filepath.IsAbs(home) {
		return filepath.Join(home, p.home, p.under), nil
	}
	return "", refusal.New(refusal.Usage, "name it with "+p.flag+" or $"+p.variable,
		"there is no default for %s here: $%s is not set", p.flag, p.xdg)
}
