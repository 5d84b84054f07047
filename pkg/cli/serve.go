package cli

import (
	"net/url"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// ServeOptions are what the daemon is started with, every default resolved and every path absolute.
type ServeOptions struct {
	State   string
	Run     string
	Pool    string
	Backups string
	RootKey string
	Region  string
	// Listen are more places to serve NBD at than the socket in Run, as URIs.
	Listen []string
	// TLSCert, TLSKey and TLSCA are files in PEM, all or none.
	TLSCert, TLSKey, TLSCA string
	InsecureLoopback       bool
	// Metrics is HOST:PORT or unix:PATH, or empty.
	Metrics string
	// ReplaceAuditLog has a damaged audit log kept aside, and another begun.
	ReplaceAuditLog bool
	// Hook is a program that is run for each event, or empty.
	Hook string
	// NotifyDays is how long before a key's deletion that is an event.
	NotifyDays int
	// KeyMemory is one of keyMemories.
	KeyMemory string
}

// keyMemories are where keys may lie.
func keyMemories() []string { return []string{"auto", "memfd_secret", "locked"} }

func (a *app) serve() *cobra.Command {
	var given ServeOptions
	cmd := &cobra.Command{
		Use: "serve", Short: "Run the daemon, in the foreground",
		Long: `Run the daemon until SIGTERM or SIGINT, which detach every disk in good order. It prints one line,
"ready nbd+unix:///?socket=PATH", on stdout once it accepts; everything else goes to stderr.

The root key file is made on first use. Without it, and without another slot ("root slot add", "root recovery create"), nothing in
the state directory can ever be opened: back it up. Where the file is missing another slot opens the store, or the daemon starts locked.

With a URI of RFC 7512 for --root-key, a new store is held by a PKCS#11 token (an HSM, a smart card): the root key is made on the token,
never leaves it, and wraps every key. The token is needed at each attach of an encrypted disk; its own backup is the only one there is.
  pkcs11:token=LABEL;object=KEY?module-path=/PATH/LIBRARY.so&pin-source=file:/PATH/PIN

Keys lie in memory of the kind memfd_secret, which not even root can read, or in locked memory where the kernel lacks that. While
memfd_secret is in use the machine can't hibernate. --key-memory locked lets it; root can read the keys then, and hibernating writes
them to disk.

NBD is served on nbd.sock in the run directory, and wherever --listen says:
  nbds://HOST:PORT                 TCP with TLS; a client shows a certificate that --tls-ca has signed
  nbd+unix:///?socket=PATH         another unix socket; with nbds+unix everybody has to use TLS there
  nbd+vsock://CID:PORT             for virtual machines; CID may be "any"; with nbds+vsock they have to use TLS
  nbd://127.0.0.1:PORT             TCP in clear, inside this machine only, and only with --insecure-loopback
With --tls-cert, --tls-key and --tls-ca clients may use TLS on the other sockets too. Changed files are read again by themselves.
Sockets that systemd hands over are served as well (nbdcrypt.socket).

Metrics for Prometheus are at /metrics on the control socket, for users who may list disks. --metrics tells them to whoever can connect
to a loopback address (every user of this machine) or a unix socket (the daemon's user and its group): they name disks, never keys.

--hook runs PROGRAM for each event: an attach, escrow, export, re-wrap or new disk that a key or rights forbade (unwrap-refused), a key that
is destroyed within --notify-days (deletion-due), a key that was destroyed (key-deleted) or rotated (key-rotated), and imported material that
was deleted at its date (material-expired). It gets the event as JSON on stdin and in a few variables, no shell, and 30 seconds. Nobody but root and the daemon's user may be able to write it.`,
		Example: `  nbdcrypt serve
  nbdcrypt serve --state /srv/nbdcrypt --root-key /etc/nbdcrypt/root.key --region north
  nbdcrypt serve --root-key 'pkcs11:token=box;object=nbdcrypt?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/nbdcrypt/pin'
  nbdcrypt serve --listen nbds://0.0.0.0 --tls-cert server.pem --tls-key server.key --tls-ca clients.pem`,
		Args: wants(),
		RunE: runs(func(cmd *cobra.Command, args []string) error {
			options, err := a.serveOptions(cmd, given)
			if err != nil {
				return err
			}
			return a.hooks.Serve(cmd.Context(), options, cmd.OutOrStdout(), cmd.ErrOrStderr())
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&given.State, "state", "", "metadata, keys and layers (default $NBDCRYPT_STATE, /var/lib/nbdcrypt or $XDG_STATE_HOME/nbdcrypt)")
	flags.StringVar(&given.Pool, "pool", "", "where layers lie (default pool/ in the state directory)")
	flags.StringVar(&given.Backups, "backups", "", "where backups lie (default backups/ in the state directory)")
	flags.StringVar(&given.RootKey, "root-key", "", "the root key file, or the URI of a key on a token (default $NBDCRYPT_ROOT_KEY, /etc/nbdcrypt/root.key or $XDG_CONFIG_HOME/nbdcrypt/root.key)")
	flags.StringVar(&given.Region, "region", "local", "the region that grants and keys belong to")
	flags.StringArrayVar(&given.Listen, "listen", nil, "serve NBD at this URI too (may be repeated)")
	flags.StringVar(&given.TLSCert, "tls-cert", "", "the daemon's certificate for TLS, in PEM")
	flags.StringVar(&given.TLSKey, "tls-key", "", "the private key of that certificate, in PEM")
	flags.StringVar(&given.TLSCA, "tls-ca", "", "the authority that signs clients' certificates, in PEM")
	flags.BoolVar(&given.InsecureLoopback, "insecure-loopback", false, "allow --listen nbd:// with a loopback address: TCP in clear")
	flags.StringVar(&given.Metrics, "metrics", "", "also serve metrics at 127.0.0.1:PORT or unix:PATH")
	flags.StringVar(&given.Hook, "hook", "", "run this program for each event; an absolute path")
	flags.IntVar(&given.NotifyDays, "notify-days", 7, "tell of a key's deletion this many days before, 1 to 1096")
	flags.BoolVar(&given.ReplaceAuditLog, "replace-audit-log", false, "where the audit log is damaged keep it aside, and begin another one")
	flags.StringVar(&given.KeyMemory, "key-memory", "auto", "where keys lie: auto, memfd_secret or locked")
	_ = cmd.RegisterFlagCompletionFunc("key-memory", cobra.FixedCompletions(keyMemories(), cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"state", "pool", "backups", "root-key", "tls-cert", "tls-key", "tls-ca", "hook"} {
		_ = cmd.MarkFlagFilename(name) // the flags exist: it can't fail
	}
	return cmd
}

func (a *app) serveOptions(cmd *cobra.Command, o ServeOptions) (ServeOptions, error) {
	var err error
	for _, p := range []struct {
		place place
		flag  string
		into  *string
	}{{statePlace(), o.State, &o.State}, {runPlace(), a.run, &o.Run}, {rootKeyPlace(), o.RootKey, &o.RootKey}} {
		if *p.into, err = a.hooks.Env.path(p.place, p.flag); err != nil {
			return o, err
		}
	}
	for _, dir := range []struct {
		path *string
		name string
	}{{&o.Pool, "pool"}, {&o.Backups, "backups"}} {
		if *dir.path == "" {
			*dir.path = filepath.Join(o.State, dir.name)
		}
		if *dir.path, err = filepath.Abs(*dir.path); err != nil {
			return o, err
		}
	}
	if o.Region == "" {
		return o, usage(cmd, "--region is empty")
	}
	if !slices.Contains(keyMemories(), o.KeyMemory) {
		return o, usage(cmd, "--key-memory is one of %s, not %q", strings.Join(keyMemories(), ", "), o.KeyMemory)
	}
	for _, file := range []*string{&o.TLSCert, &o.TLSKey, &o.TLSCA} {
		if *file == "" {
			continue
		}
		if *file, err = filepath.Abs(*file); err != nil {
			return o, err
		}
	}
	if o.Hook != "" && !filepath.IsAbs(o.Hook) {
		return o, usage(cmd, "--hook is an absolute path, not %q", o.Hook)
	}
	if o.NotifyDays < 1 || o.NotifyDays > 1096 {
		return o, usage(cmd, "--notify-days is 1 to 1096, not %d", o.NotifyDays)
	}
	for _, at := range o.Listen {
		if uri, err := url.Parse(at); err != nil || uri.Scheme == "" {
			return o, usage(cmd, "--listen %q is not a URI", at)
		}
	}
	return o, nil
}
