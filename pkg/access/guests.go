package access

import (
	"os/user"
	"slices"
	"strconv"
	"strings"

	"nbdcrypt/pkg/refusal"
)

// NoUID is the UID of who is known by name alone. No user has it (uid_t(-1) of setuid(2)).
const NoUID = ^uint32(0)

// What a name begins with that stands for no local user.
const (
	byCertificate = "cert:"
	byVsock       = "vsock:"
)

// Guest is somebody at the other end of an NBD connection, or somebody to whom an export is opened: a local user, who has a UID, or who is
// known by a certificate ("cert:NAME") or the address of a virtual machine ("vsock:CID"). Who has neither is a stranger.
type Guest struct {
	UID  uint32
	Name string
}

// Arrived is who comes with a UID or a name. A certificate in the name of a local user makes its holder that user: the authority
// that signs certificates is the administrator's.
func Arrived(uid uint32, name string) Guest {
	holder, is := strings.CutPrefix(name, byCertificate)
	if uid != NoUID || !is {
		return Guest{uid, name}
	}
	if u, err := user.Lookup(holder); err == nil && u.Username == holder { // a directory service may find users by other names too
		uid = uidOf(u.Uid)
	}
	return Guest{uid, name}
}

// ParseGuest reads what --allow was given: a local user's name or uid, cert:NAME or vsock:CID. A name that is none of these is
// refused, and not taken for a certificate's: it may be a slip of the pen.
func ParseGuest(text string) (Guest, error) {
	if name, is := strings.CutPrefix(text, byCertificate); is && name != "" {
		return Guest{NoUID, text}, nil
	}
	if cid, is := strings.CutPrefix(text, byVsock); is {
		n, err := strconv.ParseUint(cid, 10, 32)
		if err != nil {
			return Guest{}, refusal.New(refusal.Usage, "give vsock:CID, such as vsock:3", "%.100q names no virtual machine", text)
		}
		return Guest{NoUID, byVsock + strconv.FormatUint(n, 10)}, nil
	}
	uid, err := ParseUser(text)
	if err != nil {
		return Guest{}, refusal.New(refusal.NotFound, "`getent passwd` lists the users; who comes with a certificate is cert:NAME, a virtual machine vsock:CID", "%w", err)
	}
	return Guest{UID: uid}, nil
}

// ParseUser finds a user of this machine by name or uid.
func ParseUser(text string) (uid uint32, err error) {
	number := text
	if u, err := user.Lookup(text); err == nil {
		number = u.Uid
	}
	if uid = uidOf(number); uid == NoUID {
		return uid, refusal.New(refusal.NotFound, "`getent passwd` lists the users of this machine; rights are theirs, by name or uid", "there is no user %.100q", text)
	}
	return uid, nil
}

// uidOf reads a number; NoUID where it is none.
func uidOf(text string) uint32 {
	uid, err := strconv.ParseUint(text, 10, 32)
	if err != nil {
		return NoUID
	}
	return uint32(uid)
}

// MayOpen tells whether somebody may list and open an export: who attached it, whom it was opened to, and root.
func MayOpen(who Guest, attacher uint32, allow []Guest) bool {
	if who.UID != NoUID && (who.UID == 0 || who.UID == attacher) {
		return true
	}
	return slices.ContainsFunc(allow, func(g Guest) bool {
		return g.UID != NoUID && g.UID == who.UID || g.Name != "" && g.Name == who.Name
	})
}
