//go:build integration

package integration

import (
	"crypto/tls"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/nbd/nbdtest"
	"nbdcrypt/pkg/control"
)

// pki is an authority and directories with certificates of it, as libnbd and QEMU want them.
type pki struct {
	t         *testing.T
	dir       string
	authority *nbdtest.Authority
}

// newPKI makes an authority, and a daemon's certificate from it.
func newPKI(t *testing.T) *pki {
	t.Helper()
	p := &pki{t, tempDir(t), nbdtest.NewAuthority()}
	p.write("server", "server", p.issue("server"))
	return p
}

func (p *pki) issue(name string) tls.Certificate {
	return p.authority.Issue(name, time.Now().Add(time.Hour))
}

// write makes a directory with the authority's certificate and, for somebody, theirs.
func (p *pki) write(name, who string, certs ...tls.Certificate) string {
	p.t.Helper()
	dir := filepath.Join(p.dir, name)
	check(p.t, os.Mkdir(dir, 0o755))
	writeFile(p.t, dir+"/ca-cert.pem", p.authority.PEM())
	for _, c := range certs {
		cert, key := nbdtest.PEM(c)
		writeFile(p.t, dir+"/"+who+"-cert.pem", cert)
		writeFile(p.t, dir+"/"+who+"-key.pem", key)
	}
	return dir
}

// client makes a directory for a client with a certificate in that name.
func (p *pki) client(name string) string { return p.write(name, "client", p.issue(name)) }

// flags are those of `serve`.
func (p *pki) flags() []string {
	return []string{"--tls-cert=" + p.dir + "/server/server-cert.pem", "--tls-key=" + p.dir + "/server/server-key.pem", "--tls-ca=" + p.dir + "/server/ca-cert.pem"}
}

// listens returns the URI with that scheme at which the daemon serves.
func (d *daemon) listens(scheme string) string {
	d.t.Helper()
	s := get[control.Status](d, "status")
	for _, uri := range s.Listen {
		if strings.HasPrefix(uri, scheme+"://") {
			return uri
		}
	}
	d.t.Fatalf("it serves at %q, at no %s", s.Listen, scheme)
	return ""
}

// over is the URI of an export over TLS, for libnbd, which finds its certificates in dir. The daemon's certificate is for localhost.
func (d *daemon) over(scheme, export, dir string) string {
	d.t.Helper()
	u, err := url.Parse(d.listens(scheme))
	check(d.t, err)
	query := u.Query()
	query.Set("tls-certificates", dir)
	if u.Host == "" {
		query.Set("tls-hostname", "localhost")
	} else {
		u.Host = "localhost:" + u.Port()
	}
	u.Path, u.RawQuery = "/"+export, strings.ReplaceAll(query.Encode(), "%2F", "/")
	return u.String()
}

// startTLS starts a daemon that serves TLS on TCP and on a socket of its own.
func startTLS(t *testing.T, p *pki) *daemon {
	t.Helper()
	d := newDaemon(t)
	d.flags = append(p.flags(), "--listen=nbds://127.0.0.1:0", "--listen=nbds+unix:///?socket="+d.dir+"/tls.sock")
	d.start()
	d.do("grant", "create")
	return d
}

func TestTLSLibnbd(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	d := startTLS(t, p)
	d.create("vol", "64M", "--encrypted")
	d.attach("vol", "--allow=cert:backup")
	dir := p.client("backup")
	for _, scheme := range []string{"nbds", "nbds+unix"} {
		uri := d.over(scheme, "vol", dir)
		if out := tool(t, "nbdinfo", "--json", uri); !strings.Contains(out, `"TLS": true`) || !strings.Contains(out, `"export-size": 67108864`) {
			t.Errorf("nbdinfo:\n%s", out)
		}
		if out := tool(t, "nbdinfo", "--list", d.over(scheme, "", dir)); !strings.Contains(out, `export="vol"`) {
			t.Errorf("nbdinfo --list:\n%s", out)
		}
		in, out := filepath.Join(t.TempDir(), "in"), filepath.Join(t.TempDir(), "out")
		writeFile(t, in, noise(scheme, 64<<20))
		tool(t, "nbdcopy", "--connections=4", "--requests=64", "--flush", in, uri)
		tool(t, "nbdcopy", "--connections=4", uri, out)
		tool(t, "cmp", in, out)
		tool(t, "nbdsh", "-c", "h.set_uri_allow_local_file(True)\nh.connect_uri('"+uri+"')\nh.set_strict_mode(0)\ndata = bytes(range(256)) * 300\nh.pwrite(data, 777)\nassert h.pread(len(data), 777) == data\nassert h.get_tls_negotiated()\nh.shutdown()")
	}
	d.do("detach", "vol")
	d.stop()
}

func TestTLSQemu(t *testing.T) {
	t.Parallel()
	p := newPKI(t)
	d := startTLS(t, p)
	d.create("vol", "64M", "--encrypted")
	d.attach("vol", "--allow=cert:vm")
	u, err := url.Parse(d.listens("nbds"))
	check(t, err)
	creds := "tls-creds-x509,id=tls,endpoint=client,dir=" + p.client("vm")
	image := "driver=nbd,host=localhost,port=" + u.Port() + ",export=vol,tls-creds=tls"
	out := tool(t, "qemu-io", "--object", creds, "--image-opts", "-c", "write -P 0x5a 1000 70000", "-c", "read -P 0x5a 1000 70000", "-c", "write -z 4096 8192",
		"-c", "read -P 0 4096 8192", "-c", "aio_write -P 7 2M 1M", "-c", "aio_flush", "-c", "read -P 7 2M 1M", "-c", "flush", "driver=raw,file.driver=nbd,file.host=localhost,file.port="+u.Port()+",file.export=vol,file.tls-creds=tls")
	if strings.Contains(out, "failed") || strings.Contains(out, "error") {
		t.Errorf("qemu-io:\n%s", out)
	}
	file := filepath.Join(t.TempDir(), "out.qcow2")
	tool(t, "qemu-img", "convert", "--object", creds, "--image-opts", "-O", "qcow2", image, file)
	tool(t, "qemu-img", "compare", "--object", creds, "--image-opts", image, "driver=qcow2,file.driver=file,file.filename="+file)
}

// Who has no certificate, or one that is expired, foreign or somebody else's, opens nothing and is told of nothing.
func TestTLSCertificatesDecide(t *testing.T) {
	t.Parallel()
	p, foreign := newPKI(t), newPKI(t)
	d := startTLS(t, p)
	d.create("vol", "4M", "--plain")
	d.attach("vol", "--allow=cert:backup", "--allow=nobody")
	wrong := p.write("foreign", "client", foreign.issue("backup"))
	expired := p.write("expired", "client", p.authority.Issue("backup", time.Now().Add(-time.Minute)))
	for dir, want := range map[string]bool{
		p.client("backup"): true, p.client("nobody"): true, p.client("root"): true, // a certificate in a user's name is that user
		p.client("other"): false, p.client("cert:backup"): false, p.write("none", "client"): false, wrong: false, expired: false,
	} {
		r := execute(t, exec.Command("nbdinfo", d.over("nbds", "vol", dir)))
		list := execute(t, exec.Command("nbdinfo", "--list", d.over("nbds", "", dir)))
		if opens, sees := r.code == 0, strings.Contains(list.stdout, `"vol"`); opens != want || sees != want {
			t.Errorf("%s: opens %v, sees %v: %s", filepath.Base(dir), opens, sees, r.stderr)
		}
	}
	// A client that trusts another authority goes away by itself.
	if r := execute(t, exec.Command("nbdinfo", d.over("nbds", "vol", foreign.client("backup")))); r.code == 0 {
		t.Error("a client took the daemon for somebody else's")
	}
	// And no TLS is no way in: what asks for nothing is refused before anything is told.
	plain := strings.Replace(d.listens("nbds"), "nbds://", "nbd://", 1)
	if r := execute(t, exec.Command("nbdinfo", "--list", plain)); r.code == 0 || strings.Contains(r.stdout, "vol") {
		t.Errorf("without TLS: %s%s", r.stdout, r.stderr)
	}
}

// The lines of README.md make what the daemon and libnbd need.
func TestTLSReadme(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	var script strings.Builder
	for line := range strings.Lines(string(readFile(t, "../../../README.md"))) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "openssl ") {
			fmt.Fprintln(&script, strings.ReplaceAll(line, "disks.example.org", "localhost"))
		}
	}
	if strings.Count(script.String(), "openssl") != 3 {
		t.Fatalf("README.md has not three lines for openssl:\n%s", &script)
	}
	cmd := exec.Command("sh", "-ec", script.String())
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	d := newDaemon(t)
	d.flags = []string{"--listen=nbds://127.0.0.1:0", "--tls-cert=" + dir + "/server-cert.pem", "--tls-key=" + dir + "/server-key.pem", "--tls-ca=" + dir + "/ca-cert.pem"}
	d.start()
	d.do("grant", "create")
	d.create("vol", "4M", "--plain")
	d.attach("vol", "--allow=cert:alice")
	tool(t, "nbdinfo", d.over("nbds", "vol", dir))
}
