package daemon

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdclient"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

var aYes, aNo = true, false

// plainImage makes an image of a plain disk that begins with some words.
func plainImage(t *testing.T, d *Daemon, c *control.Client, name string) {
	t.Helper()
	must(t, d, control.RouteDiskCreate, `{"name":"bare","size":1048576,"encrypted":false}`)
	at, err := c.Attach(t.Context(), "bare", control.Attach{})
	if err != nil {
		t.Fatal(err)
	}
	nc, err := nbdclient.Dial(t.Context(), at.URI)
	if err == nil {
		_, err = nc.WriteAt([]byte("what the image holds"), 8192)
	}
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.Disconnect()
	if _, err := c.Detach(t.Context(), "bare", false); err != nil {
		t.Fatal(err)
	}
	must(t, d, control.RouteImageCreate, `{"name":"`+name+`","disk":"bare"}`)
}

// TestRuleA24_SystemDiskFollowsTheImage: of an encrypted image a server's system disk is encrypted, under the image's key; asking for something else is refused.
func TestRuleA24_SystemDiskFollowsTheImage(t *testing.T) {
	d, c := farm(t)
	image, err := c.ImageShow(t.Context(), "golden")
	if err != nil {
		t.Fatal(err)
	}
	for i, system := range []control.NewDisk{{}, {Encrypted: &aYes}, {Key: "a"}, {Encrypted: &aYes, Key: image.Key.ID, Size: 2 << 20}} {
		s, err := c.ServerCreate(t.Context(), control.ServerCreate{Name: "s" + string(rune('a'+i)), Image: "golden", System: system})
		if err != nil || len(s.Disks) != 1 || s.Disks[0].Role != control.SystemDisk || !s.Disks[0].Encrypted || s.Disks[0].Key.ID != image.Key.ID || s.Image.Name != "golden" || s.Status != control.ServerStopped {
			t.Errorf("%+v: %+v, %v", system, s, err)
		}
		if err == nil && s.Disks[0].Size != max(1<<20, system.Size) {
			t.Errorf("%d bytes", s.Disks[0].Size)
		}
	}
	for _, system := range []control.NewDisk{{Encrypted: &aNo}, {Key: "b"}, {Encrypted: &aYes, Key: "b"}, {Size: 4096}} {
		_, err := c.ServerCreate(t.Context(), control.ServerCreate{Name: "other", Image: "golden", System: system})
		code(t, err, refusal.Usage)
	}
	if rec := lastOf(t, d, "server create"); rec.Resource != "other golden" {
		t.Errorf("%+v", rec)
	}
	if list, err := c.ServerList(t.Context()); err != nil || len(list) != 5 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestRuleA25_PlainImageLeavesTheChoice: of a plain image the system disk is plain or encrypted, under any key, and holds the same; what is left open the project decides (rule C1).
func TestRuleA25_PlainImageLeavesTheChoice(t *testing.T) {
	d, c := farm(t)
	plainImage(t, d, c, "open")
	for name, system := range map[string]control.NewDisk{"plain": {}, "asked": {Encrypted: &aNo}, "safe": {Encrypted: &aYes}, "under-b": {Key: "b", SectorSize: 4096}} {
		s, err := c.ServerCreate(t.Context(), control.ServerCreate{Name: name, Image: "open", System: system})
		if err != nil || s.Disks[0].Encrypted != (name == "safe" || name == "under-b") || name == "under-b" && s.Disks[0].Key.Alias != "b" {
			t.Fatalf("%s: %+v, %v", name, s, err)
		}
		r := runs(t, d, c, name)
		got := make([]byte, 20)
		if _, err := r.dial(0).ReadAt(got, 8192); err != nil || string(got) != "what the image holds" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := c.ServerStop(t.Context(), name, control.ServerStop{}, false); err != nil {
			t.Error(err)
		}
	}
	must(t, d, "PATCH /v1/projects/default", `{"encrypt_by_default":true}`)
	s, err := c.ServerCreate(t.Context(), control.ServerCreate{Name: "by-default", Image: "open", Data: []control.NewDisk{{Size: 1 << 20}}})
	if err != nil || !s.Disks[0].Encrypted || !s.Disks[1].Encrypted {
		t.Errorf("%+v, %v", s, err)
	}
	_, err = c.ServerCreate(t.Context(), control.ServerCreate{Name: "both", Image: "open", System: control.NewDisk{Encrypted: &aNo, Key: "b"}})
	code(t, err, refusal.Usage)
}

// TestRuleA34_DataDisksAsAsked: data disks of a new server are plain or encrypted, each as it was asked for.
func TestRuleA34_DataDisksAsAsked(t *testing.T) {
	_, c := farm(t)
	s := showServer(t, c, "web")
	var got []string
	for _, disk := range s.Disks {
		key := ""
		if disk.Key != nil {
			key = disk.Key.Alias
		}
		got = append(got, disk.Role+" "+disk.Name+" "+key)
	}
	if want := []string{"system web-system a", "data web-data-1 ", "data web-data-2 b", "data web-data-3 c"}; !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
}

// TestRuleA36_NoServerOfAnImageWithoutItsKey: while an image's key can't be used no server is made of it, and the refusal names the key's state; nothing is left of it.
func TestRuleA36_NoServerOfAnImageWithoutItsKey(t *testing.T) {
	d, c := farm(t)
	must(t, d, "POST /v1/keys/a/disable", "")
	_, err := c.ServerCreate(t.Context(), control.ServerCreate{Name: "other", Image: "golden", Data: []control.NewDisk{{Size: 1 << 20}}})
	code(t, err, refusal.KeyForbids, "Disabled")
	must(t, d, "POST /v1/keys/a/enable", "")
	must(t, d, "POST /v1/keys/c/disable", "")
	_, err = c.ServerCreate(t.Context(), control.ServerCreate{Name: "other", Image: "golden", Data: []control.NewDisk{{Size: 1 << 20}, {Size: 1 << 20, Key: "c"}}})
	code(t, err, refusal.KeyForbids, "Disabled")
	if list, err := c.DiskList(t.Context()); err != nil || slices.ContainsFunc(list, func(v control.Disk) bool { return strings.HasPrefix(v.Name, "other") }) {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestRuleA32_ImageOfAServer: an image of a server is one of its system disk, under that one's key and no other.
func TestRuleA32_ImageOfAServer(t *testing.T) {
	d, c := farm(t)
	for _, wrong := range []control.ImageCreate{{Name: "of-web", Server: "web", Encrypted: &aNo}, {Name: "of-web", Server: "web", Key: "b"}, {Name: "of-web"}, {Name: "of-web", Server: "web", Disk: "seed"}} {
		_, err := c.ImageCreate(t.Context(), wrong)
		code(t, err, refusal.Usage)
	}
	runs(t, d, c, "web") // also while it runs
	i, err := c.ImageCreate(t.Context(), control.ImageCreate{Name: "of-web", Server: "web"})
	if err != nil || !i.Encrypted || i.Key.Alias != "a" || i.Source == nil || i.Source.Name != "web-system" {
		t.Errorf("%+v, %v", i, err)
	}
	_, err = c.ImageCreate(t.Context(), control.ImageCreate{Name: "none", Server: "none"})
	code(t, err, refusal.NotFound)
}

// A server's disks are deleted with it alone, or given back by it.
func TestServerKeepsItsDisks(t *testing.T) {
	d, c := farm(t)
	err := c.DiskDelete(t.Context(), "web-data-1", false)
	code(t, err, refusal.Busy, "web") // before it asks
	err = c.ServerDelete(t.Context(), "web", false, false)
	code(t, err, refusal.Confirm, "web-system", "web-data-3")
	s, err := c.ServerDetach(t.Context(), "web", control.ServerDiskChange{Disk: "web-system"}, false)
	if err != nil || len(s.Disks) != 3 {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = asked(t, c, "web", control.ServerRun{Token: aToken})
	code(t, err, refusal.Busy, "system disk", "server attach")
	at, err := c.Attach(t.Context(), "web-system", control.Attach{})
	if err != nil || at.URI == "" {
		t.Errorf("%+v, %v", at, err)
	}
	if _, err := c.Detach(t.Context(), "web-system", false); err != nil {
		t.Error(err)
	}
	_, err = c.ServerAttach(t.Context(), "web", control.ServerDiskChange{Disk: "seed", System: true})
	code(t, err, refusal.Busy)
	if s, err = c.ServerAttach(t.Context(), "web", control.ServerDiskChange{Disk: "web-system", System: true}); err != nil || s.Disks[0].Name != "web-system" {
		t.Errorf("%+v, %v", s, err)
	}
	if err := c.ServerDelete(t.Context(), "web", true, true); err != nil {
		t.Fatal(err)
	}
	if v, err := c.DiskShow(t.Context(), "web-system"); err != nil || v.Server != nil || !v.Bootable {
		t.Errorf("%+v, %v", v, err)
	}
	must(t, d, "DELETE /v1/disks/web-data-1?yes=true", "")
}

// A scaling configuration is among what is under its keys, in lists, dry runs and questions; `key rewrap` leaves it.
func TestRuleC7_ScalingConfigs(t *testing.T) {
	d, c := farm(t)
	if _, err := c.ConfigCreate(t.Context(), control.ConfigCreate{Name: "small", Server: "web"}); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"a", "b", "c"} {
		if !slices.Contains(usesOfKey(t, d, key), "scaling-config small false") {
			t.Errorf("under %s: %v", key, usesOfKey(t, d, key))
		}
	}
	p := mustAsk[control.Prediction](t, d, control.RouteKeyPredict+"?verb=disable", "c", "")
	if !slices.ContainsFunc(p.Effects, func(e control.Effect) bool {
		return e.Kind == "scaling-config" && e.Attach == control.AttachRefused && e.IO == control.IONone
	}) {
		t.Errorf("%+v", p.Effects)
	}
	if said := refused(t, d, refusal.Confirm, control.RouteKeySchedule, "c", `{"days":7}`); !strings.Contains(said.Message, "1 disk (0 attached), 1 scaling-config are under it") {
		t.Error(said.Message)
	}
	job := d.ended(t, mustAsk[control.Job](t, d, control.RouteKeyRewrap, "c", `{"to":"b"}`))
	var r control.Rewrapped
	text, _ := json.Marshal(job.Result)
	if err := json.Unmarshal(text, &r); err != nil || r.Rewrapped != 1 || len(r.Failed) != 0 || len(r.Warnings) != 1 || !strings.Contains(r.Warnings[0], "small names key c still") {
		t.Errorf("%+v", job)
	}
	for key, to := range map[string]string{"b": `{}`, "a": `{"to":"b"}`} { // its own newest version; the system disk's, which follows the image
		job = d.ended(t, mustAsk[control.Job](t, d, control.RouteKeyRewrap, key, to))
		if text, _ := json.Marshal(job.Result); job.Error != nil || strings.Contains(string(text), "warnings") {
			t.Errorf("%s to %s: %s, %+v", key, to, text, job.Error)
		}
	}
	if got := usesOfKey(t, d, "c"); !slices.Equal(got, []string{"scaling-config small false"}) {
		t.Errorf("still under c: %v", got)
	}
}

// A project is not deleted while it has servers, configurations or groups.
func TestProjectWithServersStays(t *testing.T) {
	d := start(t)
	must(t, d, control.RouteProjectCreate, `{"name":"shop"}`)
	in := "?project=shop"
	must(t, d, control.RouteDiskCreate+in, `{"name":"d","size":1048576,"encrypted":false}`)
	must(t, d, control.RouteImageCreate+in, `{"name":"golden","disk":"d"}`)
	must(t, d, control.RouteServerCreate+in, `{"name":"web","image":"golden"}`)
	must(t, d, control.RouteConfigCreate+in, `{"name":"small","image":"golden"}`)
	d.awaitJob(t, must(t, d, control.RouteGroupCreate+in, `{"name":"many","config":"small","min":0,"max":1}`))
	for _, step := range []struct{ says, then string }{
		{"scaling group list", "DELETE /v1/scaling-groups/many"}, {"server list", "DELETE /v1/servers/web"}, {"scaling config list", "DELETE /v1/scaling-configs/small"},
	} {
		said := refused(t, d, refusal.Busy, "DELETE /v1/projects/{project}?yes=true", "shop", "")
		if !strings.Contains(said.Hint, step.says) {
			t.Errorf("%+v does not name %q", said, step.says)
		}
		status, body := d.call(t, step.then+in+"&yes=true", nbd.Peer{}, "")
		if status == 202 {
			if job := d.awaitJob(t, body); job.Error != nil {
				t.Fatalf("%+v", job)
			}
		} else if status >= 300 {
			t.Fatal(step.then, status, body)
		}
	}
	must(t, d, "DELETE /v1/images/golden"+in+"&yes=true", "")
	must(t, d, "DELETE /v1/disks/d"+in+"&yes=true", "")
	must(t, d, "DELETE /v1/projects/shop?yes=true", "")
}

// A damaged record of a server is named: by the list, and by `check`.
func TestDamagedServerIsNamed(t *testing.T) {
	d, c := farm(t)
	id := showServer(t, c, "web").ID
	defer spoil(t, d, "server/"+id)()
	list, err := c.ServerList(t.Context())
	if err != nil || len(list) != 1 || list[0].Status != "damaged" {
		t.Errorf("%+v, %v", list, err)
	}
	_, err = c.ServerShow(t.Context(), "web")
	code(t, err, refusal.Damaged, id)
	report, err := c.Check(t.Context(), "")
	if err != nil || !slices.ContainsFunc(report.Findings, func(f control.Finding) bool { return f.Where == "server/"+id && f.Severity == "damage" }) {
		t.Errorf("%+v, %v", report.Findings, err)
	}
}
