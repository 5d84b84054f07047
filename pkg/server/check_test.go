package server_test

import (
	"strings"
	"testing"
)

// Whatever of the records and indexes is missing or says something else, a check finds it; and nothing where all is well.
func TestCheckFindsWhatIsWrong(t *testing.T) {
	r := golden(t)
	ctx := t.Context()
	r.group("g", 2)
	if found := append(r.check("", true), r.check("default", false)...); len(found) > 0 {
		t.Fatal(found)
	}
	web, err := r.Get(ctx, "default", "web")
	must(t, err)
	member, err := r.Get(ctx, "default", "g-1")
	must(t, err)
	g, err := r.Group(ctx, "default", "g")
	must(t, err)
	c, err := r.Config(ctx, "default", "c")
	must(t, err)
	for key, c := range map[string]struct {
		value []byte
		says  string
	}{
		"server/" + web.ID.String():                                 {[]byte("{}"), "server/"},
		"scaling-config/" + c.ID.String():                           {nil, "record is missing"},
		"scaling-group/" + g.ID.String():                            {[]byte(`{"v":3}`), "version 3"},
		"server-name/default/web":                                   {nil, "does not name"},
		"server-name/default/nobody":                                {[]byte(web.ID.String()), "called otherwise"},
		"scaling-group-name/default/h":                              {[]byte("x"), "record is missing"},
		"disk-server/" + web.Disks[1].ID.String():                   {nil, "nothing keeps its disk web-data-1"},
		"disk-server/" + web.Disks[0].ID.String():                   {[]byte(member.ID.String()), "does not say so"},
		"disk/" + web.Disks[2].ID.String():                          {nil, "web-data-2"},
		"image-config/" + c.Image.ID.String() + "/" + c.ID.String(): {nil, "nothing keeps its image"},
		"image/" + c.Image.ID.String():                              {nil, "its image c"},
		"config-group/" + c.ID.String() + "/" + g.ID.String():       {nil, "nothing keeps its scaling configuration"},
		"scaling-member/" + g.ID.String() + "/00000001":             {nil, "does not know it"},
		"scaling-member/" + g.ID.String() + "/00000007":             {[]byte(member.ID.String()), "does not say so"},
		"disk-server/0190b5a0-0000-7000-8000-000000000001":          {[]byte("0190b5a0-0000-7000-8000-000000000002"), "record is missing"},
	} {
		was := r.value(key)
		r.put(key, c.value)
		found := r.check("", false)
		if !strings.Contains(strings.Join(found, "\n"), c.says) {
			t.Errorf("%s: found %q, want %q", key, found, c.says)
		}
		if key != "disk-server/0190b5a0-0000-7000-8000-000000000001" && len(r.check("default", false)) == 0 {
			t.Errorf("%s: a check of the project finds nothing", key)
		}
		if other := r.check("other", false); len(other) > 0 {
			t.Errorf("%s: a check of another project finds %v", key, other)
		}
		r.put(key, was)
	}
	r.whole()
	r.empty()
}
