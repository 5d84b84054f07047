package daemon

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"sync"
	"time"
	_ "unsafe" // for linkname

	"nbdcrypt/pkg/child"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/secret"
)

// rotation is how often a key is rotated, 0 for never, and what the days are counted from.
type rotation struct {
	days int
	from time.Time
}

// broughtIn is what is kept of key material that was brought: which it was first, and when it is deleted again.
type broughtIn struct {
	material string
	expires  *time.Time
	// parameters are the newest, and until how long they are good.
	parameters control.ImportParameters
	until      time.Time
}

func (g *game) keyRotate() {
	ref, k := g.aKey(generated(enabled))
	fits := k.in(enabled) && !k.isDefault && !k.imported
	g.keyVerb(control.RouteKeyRotate, nil, k, ref, k.against(fits).when(g.locked, 10), func() { k.rotate(g.latest()) })
}

// rotate adds a version; what is under the older ones stays under them (rule B6).
func (k *modelKey) rotate(now time.Time) {
	k.versions++
	if k.rotation.days > 0 {
		k.rotation.from = now
	}
}

func (g *game) keyRotation() {
	ref, k := g.aKey(generated(enabled, disabled))
	days := among(g, "days", 0, 30, 30, 40, 365, 29, 366)
	fits := k.in(enabled, disabled) && !k.isDefault && !k.imported
	what := k.against(fits).when(days != 0 && days < 30 || days > 365, 2)
	g.keyVerb(control.RouteKeyRotation, control.KeyRotation{Days: days}, k, ref, what, func() {
		if k.rotation.days == 0 {
			k.rotation.from = g.latest()
		}
		k.rotation.days = days
	})
}

func (g *game) diskRewrap() {
	ref, d := g.aDisk(isUsable)
	to, k := g.aKey((*modelKey).usable)
	what := d.there().when(k == nil, 3).when(d != nil && d.key == nil, 1)
	if d.under() != nil {
		what = append(what, g.rewraps(d, k)...)
	}
	a := ask{who: g.somebody(), route: control.RouteDiskRewrap, name: ref, body: control.DiskRewrap{Key: to}}.about(d.under())
	byGrant := !g.has(a.who, takes[a.route].roles...)
	answer, done := g.play(a, what.when(byGrant && k != nil && !k.grantedTo(a.who, "encrypt"), 5))
	if done {
		d.key, d.version = k, k.versions
		g.sameDisk(decode[control.Disk](g, answer), d)
	}
}

// rewraps is what speaks against putting a disk under the newest version of a key (rule C5): both keys have to be usable.
func (g *game) rewraps(d *modelDisk, k *modelKey) against {
	if k == nil {
		return refuses(3)
	}
	what := refuses().when(!g.granted, 5).when(!d.key.usable() || !k.usable(), 4)
	return what.when(g.locked && d.needs(k), 10)
}

// needs tells whether re-wrapping a disk changes anything.
func (d *modelDisk) needs(k *modelKey) bool { return d.key != k || d.version != k.versions }

func (g *game) keyRewrap() {
	ref, from := g.aKey((*modelKey).usable)
	in, to := control.KeyRewrap{}, from
	if !g.oneIn(3, "to its newest version") {
		in.To, to = g.aKey((*modelKey).usable)
	}
	what := from.against(from.in(enabled)).when(to == nil, 3).when(to != nil && !to.usable(), 4)
	needs, first := 0, refuses()
	for _, d := range g.disks {
		if from != nil && d.key == from && to != nil {
			first = append(first, g.rewraps(d, to)...)
			if d.needs(to) {
				needs++
			}
		}
	}
	a := ask{who: g.somebody(), route: control.RouteKeyRewrap, name: ref, body: in}.about(from)
	a.also = needs
	if len(what) == 0 {
		a.alsoRefused = 1 // the first disk
		what = first
	}
	answer, done := g.play(a, what)
	if !done {
		return
	}
	out := decode[control.Rewrapped](g, answer)
	if out.Rewrapped != needs || len(out.Failed) > 0 || out.Version != to.versions {
		g.failf("%d disks are to be re-wrapped to version %d: %s", needs, to.versions, answer)
	}
	for _, d := range g.disks {
		if d.key == from {
			d.key, d.version = to, to.versions
		}
	}
}

// wrappingKey is made once: each takes a second.
var wrappingKey = sync.OnceValues(func() (public, private []byte) {
	public, key, err := child.RSAKey(background)
	if err != nil {
		panic(err)
	}
	defer key.Destroy()
	return public, bytes.Clone(key.Bytes())
})

//go:linkname newWrappingKey nbdcrypt/keystore.newWrappingKey
var newWrappingKey func(context.Context) ([]byte, *secret.Key, error)

// reuseWrappingKey has import parameters made with that key.
func reuseWrappingKey() (restore func()) {
	was := newWrappingKey
	newWrappingKey = func(context.Context) ([]byte, *secret.Key, error) {
		public, private := wrappingKey()
		key, err := secret.Work(len(private), secret.Purpose{Kind: "test"})
		if err == nil {
			copy(key.Bytes(), private)
		}
		return public, key, err
	}
	return func() { newWrappingKey = was }
}

func (g *game) keyPrepare() {
	ref, k := g.aKey(brought(enabled, disabled, pendingImport))
	what := k.against(k.in(enabled, disabled, pendingImport) && k.imported).when(g.locked, 10)
	answer, done := g.play(ask{who: g.somebody(), route: control.RouteKeyPrepare, name: ref}.about(k), what)
	if done {
		k.parameters, k.until = decode[control.ImportParameters](g, answer), g.latest().Add(day).Truncate(time.Second)
	}
}

// keyImport brings key material with the parameters that a key has got last, or, rarely, those of another.
func (g *game) keyImport() {
	ref, k := g.aKey(brought(enabled, disabled, pendingImport))
	for _, waiting := range g.live() {
		if waiting.parameters.Token != "" && !g.oneIn(3, "another key") {
			ref, k = waiting.id, waiting
		}
	}
	what := k.against(k.in(enabled, disabled, pendingImport) && k.imported).when(g.locked, 10)
	in := control.KeyImport{Token: "none"}
	material := among(g, "material", "first", "first", "first", "other")
	if k != nil && k.parameters.Token != "" {
		in.Token, in.Material = k.parameters.Token, wrapped(g, k.parameters.WrappingKey, material)
		what = what.when(!g.latest().Before(k.until), 4).when(k.material != "" && k.material != material, 4)
	} else {
		what = what.when(true, 2)
	}
	if g.oneIn(3, "expires") {
		in.Expires = new(g.latest().Add(among(g, "in", 8*day, 40*day, -day) + time.Minute))
		what = what.when(!in.Expires.After(g.latest()), 2)
	}
	g.keyVerb(control.RouteKeyImport, in, k, ref, what, func() {
		k.material, k.expires = material, in.Expires
		if k.versions == 0 {
			k.versions, k.state = 1, enabled
		}
	})
}

// wrapped is 32 bytes, as whoever has them brings them.
func wrapped(g *game, public, material string) []byte {
	block, _ := pem.Decode([]byte(public))
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		g.failf("%v", err)
	}
	sum := sha256.Sum256([]byte(material))
	out, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, key.(*rsa.PublicKey), sum[:], nil)
	if err != nil {
		g.failf("%v", err)
	}
	return out
}

func (g *game) keyDeleteMaterial() {
	ref, k := g.aKey(brought(enabled, disabled))
	a, _ := g.perhapsSure(ask{who: g.somebody(), route: control.RouteKeyDeleteMaterial, name: ref}.about(k))
	fits := k.in(enabled, disabled) && k.imported
	g.lose(loss{word: "delete-material", ask: a, what: k.against(fits), change: func() { k.loseMaterial() }}, k)
}

// loseMaterial leaves a key without material; one that is to be destroyed stays so.
func (k *modelKey) loseMaterial() {
	if k.state != pendingDeletion {
		k.state = pendingImport
	}
	k.versions, k.expires = 0, nil
}
