package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// many is a group of servers like web.
func many(t *testing.T, c *control.Client, atLeast, atMost int) {
	t.Helper()
	if _, err := c.ConfigCreate(t.Context(), control.ConfigCreate{Name: "small", Server: "web"}); err != nil {
		t.Fatal(err)
	}
	if _, err := c.GroupCreate(t.Context(), control.GroupCreate{Name: "many", Config: "small", Min: atLeast, Max: atMost}); err != nil {
		t.Fatal(err)
	}
}

func membersIn(g control.ScalingGroup) (list []string) {
	for _, m := range g.Members {
		list = append(list, m.Name)
	}
	return list
}

// TestRuleA35_MembersKeepTheEncryption: a configuration made of an encrypted server shows attribute and key of each disk; servers scaled from it have them, each with data keys of its own.
func TestRuleA35_MembersKeepTheEncryption(t *testing.T) {
	d, c := farm(t)
	config, err := c.ConfigCreate(t.Context(), control.ConfigCreate{Name: "small", Server: "web", Machine: control.Machine{CPUs: 2}})
	if err != nil {
		t.Fatal(err)
	}
	keysOf := func(disks []control.ConfigDisk) (list []string) {
		for _, disk := range disks {
			key := "plain"
			if disk.Key != nil {
				key = disk.Key.Alias
			}
			list = append(list, fmt.Sprint(disk.Role, " ", disk.Size, " ", key, " ", disk.Encrypted))
		}
		return list
	}
	want := []string{"system 1048576 a true", "data 1048576 plain false", "data 1048576 b true", "data 1048576 c true"}
	if got := keysOf(config.Disks); !slices.Equal(got, want) || config.CPUs != 2 || config.Image.Name != "small" || config.Source == nil || config.Source.Name != "web" {
		t.Errorf("%+v", config)
	}
	g, err := c.GroupCreate(t.Context(), control.GroupCreate{Name: "many", Config: "small", Min: 3, Max: 5})
	if err != nil || !slices.Equal(membersIn(g), []string{"many-1", "many-2", "many-3"}) {
		t.Fatalf("%+v, %v", g, err)
	}
	wrapped := map[string]bool{}
	for _, m := range g.Members {
		s := showServer(t, c, m.Name)
		var got []string
		for _, disk := range s.Disks {
			key := "plain"
			if disk.Key != nil {
				key = disk.Key.Alias
			}
			got = append(got, fmt.Sprint(disk.Role, " ", disk.Size, " ", key, " ", disk.Encrypted))
		}
		if !slices.Equal(got, want) || s.CPUs != 2 || s.Group == nil || s.Group.Name != "many" || s.Status != control.ServerStopped {
			t.Errorf("%+v", s)
		}
		for _, disk := range s.Disks {
			for _, rec := range scan(t, d, "dek/disk/"+disk.ID+"/") {
				if wrapped[rec] {
					t.Errorf("disk %s has a data key of another's", disk.Name)
				}
				wrapped[rec] = true
			}
		}
		code(t, c.ServerDelete(t.Context(), m.Name, false, true), refusal.Busy, "many", "scale")
	}
	if len(wrapped) < 9 {
		t.Errorf("%d data keys", len(wrapped))
	}
}

// scan are the values under a prefix, as they lie in the catalog's seal.
func scan(t *testing.T, d *Daemon, prefix string) (values []string) {
	t.Helper()
	err := d.catalog.View(t.Context(), func(r catalog.Reader) error {
		pairs, err := r.Scan(prefix, "", 100)
		for _, p := range pairs {
			values = append(values, string(p.Value))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}

// A group that gets smaller stops and deletes its newest members, once that was confirmed; numbers are not used again.
func TestScalingDownStopsWhoRuns(t *testing.T) {
	d, c := farm(t)
	many(t, c, 1, 4)
	g, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: 3}, false)
	if err != nil || !slices.Equal(g.Made, []string{"many-2", "many-3"}) || g.Size != 3 {
		t.Fatalf("%+v, %v", g, err)
	}
	for _, size := range []int{0, 5, -1} {
		_, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: size}, true)
		code(t, err, refusal.Usage)
	}
	r := runs(t, d, c, "many-3")
	_, err = c.GroupScale(t.Context(), "many", control.GroupScale{Size: 1}, false)
	code(t, err, refusal.Confirm, "many-2", "many-3 (running)")
	g, err = c.GroupScale(t.Context(), "many", control.GroupScale{Size: 1}, true)
	if err != nil || g.Size != 1 || len(g.Deleted) != 2 || !slices.Contains(r.told, control.OrderStop) {
		t.Fatalf("%+v, %v, told %v", g, err, r.told)
	}
	if n := deks(); n != 0 {
		t.Errorf("%d DEKs are in memory", n)
	}
	if g, err = c.GroupScale(t.Context(), "many", control.GroupScale{Size: 2}, false); err != nil || !slices.Equal(membersIn(g), []string{"many-1", "many-4"}) {
		t.Errorf("%+v, %v", g, err)
	}
	err = c.ConfigDelete(t.Context(), "small", true)
	code(t, err, refusal.Busy, "many")
	code(t, c.ImageDelete(t.Context(), "small", false), refusal.Busy, "small")
	runs(t, d, c, "many-1")
	code(t, c.GroupDelete(t.Context(), "many", false, false), refusal.Confirm, "many-1 (running)", "many-4")
	if err := c.GroupDelete(t.Context(), "many", false, true); err != nil {
		t.Fatal(err)
	}
	if err := c.ConfigDelete(t.Context(), "small", true); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"scaling config create", "scaling group create", "scaling group delete", "scaling config delete"} {
		if d.recorded(t, verb, "ok") != 1 {
			t.Errorf("%s was recorded %d times", verb, d.recorded(t, verb, "ok"))
		}
	}
	if list, err := c.GroupList(t.Context()); err != nil || len(list) != 0 {
		t.Errorf("%+v, %v", list, err)
	}
}

// TestRuleA36_PreflightOfGroups: a key of a configuration that can't be used is told before anything is made: the disk, the key and its state.
func TestRuleA36_PreflightOfGroups(t *testing.T) {
	d, c := farm(t)
	many(t, c, 1, 4)
	for _, key := range []string{"a", "b", "c"} {
		must(t, d, "POST /v1/keys/"+key+"/disable", "")
		_, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: 3}, false)
		code(t, err, refusal.KeyForbids, "Disabled", key)
		_, err = c.GroupCreate(t.Context(), control.GroupCreate{Name: "more", Config: "small", Min: 1, Max: 4})
		code(t, err, refusal.KeyForbids, "Disabled", key)
		if rec := lastOf(t, d, "scaling group create"); rec.Outcome != "refused" || rec.Resource != "more small" {
			t.Errorf("%+v", rec)
		}
		must(t, d, "POST /v1/keys/"+key+"/enable", "")
	}
	if g, err := c.GroupShow(t.Context(), "many"); err != nil || g.Size != 1 {
		t.Errorf("%+v, %v", g, err)
	}
}

// What a configuration is made of has to be said once.
func TestConfigsThatAreWrong(t *testing.T) {
	_, c := farm(t)
	for _, in := range []control.ConfigCreate{{Name: "x"}, {Name: "x", Server: "web", Image: "golden"}, {Name: "x", Server: "web", Data: []control.NewDisk{{Size: 1 << 20}}},
		{Name: "x", Server: "web", System: control.NewDisk{Key: "a"}}, {Name: "x", Image: "golden", System: control.NewDisk{Encrypted: &aNo}}, {Name: "x", Image: "golden", System: control.NewDisk{Key: "b"}}} {
		_, err := c.ConfigCreate(t.Context(), in)
		code(t, err, refusal.Usage)
	}
	config, err := c.ConfigCreate(t.Context(), control.ConfigCreate{Name: "x", Image: "golden", Data: []control.NewDisk{{Size: 1 << 20, Key: "b"}}})
	if err != nil || len(config.Disks) != 2 || config.Disks[1].Key.Alias != "b" || config.Disks[0].Key.Alias != "a" {
		t.Errorf("%+v, %v", config, err)
	}
	code(t, c.ImageDelete(t.Context(), "golden", true), refusal.Busy, "x")
	if list, err := c.ConfigList(t.Context()); err != nil || len(list) != 1 || !strings.Contains(list[0].Name, "x") {
		t.Errorf("%+v, %v", list, err)
	}
}

// Who confirmed that some members go deletes no others: not those that somebody makes while the first are stopped.
func TestScalingDeletesWhatWasConfirmed(t *testing.T) {
	d, c := farm(t)
	many(t, c, 2, 9)
	for size, down := range map[int]func() error{
		3: func() error { return c.GroupDelete(t.Context(), "many", false, true) },
		2: func() error {
			_, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: 2}, true)
			return err
		},
	} {
		if _, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: 3}, true); err != nil {
			t.Fatal(err)
		}
		g, err := c.GroupShow(t.Context(), "many")
		if err != nil {
			t.Fatal(err)
		}
		r := runs(t, d, c, g.Members[2].Name)
		told, goOn, ended := make(chan struct{}), make(chan struct{}), make(chan error, 1)
		r.do(func(control.RunOrder) control.RunReport { close(told); <-goOn; return control.RunReport{} })
		go func() { ended <- down() }()
		<-told
		up, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: 5}, false)
		if err != nil || len(up.Made) != 2 {
			t.Fatalf("%+v, %v", up, err)
		}
		close(goOn)
		code(t, <-ended, refusal.Busy, up.Made[1], "by somebody else")
		if g, err = c.GroupShow(t.Context(), "many"); err != nil || g.Size != 5 {
			t.Errorf("down to %d: %+v, %v", size, g, err)
		}
	}
}

// A group whose members' guests are deaf gets smaller, and goes, with force: they are switched off, not asked.
func TestScalingSwitchesOff(t *testing.T) {
	d, c := farm(t)
	many(t, c, 1, 4)
	if _, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: 2}, false); err != nil {
		t.Fatal(err)
	}
	one, two := runs(t, d, c, "many-1"), runs(t, d, c, "many-2")
	two.do(func(control.RunOrder) control.RunReport {
		return control.RunReport{Warning: "the kernel kept it a while"}
	})
	g, err := c.GroupScale(t.Context(), "many", control.GroupScale{Size: 1, Force: true}, true)
	if err != nil || !slices.Equal(g.Deleted, []string{"many-2"}) || !slices.Equal(g.Warnings, []string{"member many-2: the kernel kept it a while"}) {
		t.Errorf("%+v, %v", g, err)
	}
	if err := c.GroupDelete(t.Context(), "many", true, true); err != nil {
		t.Fatal(err)
	}
	for _, r := range []*runner{one, two} {
		if <-r.ended; !slices.Equal(r.told, []string{control.OrderKill}) {
			t.Errorf("told %v", r.told)
		}
	}
}
