package firewall

import (
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestRulesAreWrittenAsUpstreamDoes(t *testing.T) {
	for in, want := range map[string]string{
		"action=accept":                                      "",
		"action=drop dst4=1.2.3.4":                           "action=drop dst4=1.2.3.4/32",
		"proto=tcp dsthost=1.2.3.0/24 action=accept":         "action=accept dst4=1.2.3.0/24 proto=tcp",
		"action=accept dstname=example.com":                  "action=accept dsthost=example.com",
		"action=accept dst6=2001:db8::1":                     "action=accept dst6=2001:db8::1/128",
		"action=accept proto=udp dstports=53":                "action=accept proto=udp dstports=53-53",
		"action=accept specialtarget=dns":                    "",
		"action=drop proto=icmp icmptype=8":                  "",
		"expire=1700000000 action=accept comment=for  a day": "action=accept expire=1700000000 comment=for  a day",
		"action=drop comment=":                               "action=drop",
	} {
		r, err := ParseRule(in)
		if want == "" {
			want = in
		}
		if err != nil || r.String() != want {
			t.Errorf("%q became %q (%v), want %q", in, r, err, want)
		}
	}
}

func TestBadRules(t *testing.T) {
	for _, line := range []string{
		"", " ", "accept", "action=", "action=reject", "action=accept ", "action=accept  proto=tcp", "action=accept action=accept",
		"proto=tcp", "comment=alone", "action=accept dst4=::1", "action=accept dst6=1.2.3.4", "action=accept dst4=1.2.3.4/33",
		"action=accept dst4=1.2.3.256", "action=accept dst4=1.2.3.4 dst6=::1", "action=accept dsthost=Example.com", "action=accept dsthost=",
		"action=accept dst6=fe80::1%eth0", "action=accept proto=sctp", "action=accept dstports=80", "action=accept proto=icmp dstports=80",
		"action=accept proto=tcp dstports=80-70", "action=accept proto=tcp dstports=65536", "action=accept proto=tcp dstports=-1",
		"action=accept proto=tcp icmptype=1", "action=accept proto=icmp icmptype=256", "action=accept expire=0", "action=accept expire=+5",
		"action=accept expire=99999999999999", "action=accept specialtarget=ntp", "action=accept colour=red", "action=accept dsthost=a\x00b",
		"action=accept comment=ü", "action=accept comment=50%", "action=accept comment=a comment=b", "action=accept\nproto=tcp", "action=accept dsthost=" + strings.Repeat("a", 300),
	} {
		if r, err := ParseRule(line); err == nil {
			t.Errorf("%q was read as %q", line, r)
		}
	}
	_, err := Parse("action=accept\naction=hold\n")
	if err == nil || !strings.Contains(err.Error(), "rule 2") {
		t.Errorf("%v", err)
	}
}

func TestExpiry(t *testing.T) {
	now := time.Unix(1000, 0)
	rules, err := Parse("action=accept expire=1000\naction=accept expire=2000\naction=accept expire=1500\naction=drop\n")
	if err != nil {
		t.Fatal(err)
	}
	if got := Format(Current(rules, now)); got != "action=accept expire=2000\naction=accept expire=1500\naction=drop\n" {
		t.Errorf("%q", got)
	}
	if at, ok := NextExpiry(rules, now); !ok || at.Unix() != 1500 {
		t.Errorf("%v, %v", at, ok)
	}
	if _, ok := NextExpiry(Default(), now); ok {
		t.Error("the default expires")
	}
}

func TestFile(t *testing.T) {
	rules, err := Parse("action=accept dst4=1.2.3.4/32 proto=tcp dstports=80-90 comment=web: a; b\n")
	if err != nil {
		t.Fatal(err)
	}
	more, err := Parse("action=drop expire=1700000000\naction=accept dst6=::/0 proto=icmp icmptype=0\naction=accept dsthost=example.com specialtarget=dns\n")
	if err != nil {
		t.Fatal(err)
	}
	rules = append(rules, more...)
	raw, err := Marshal(rules)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(raw), `<firewall version="2">`) || !strings.Contains(string(raw), `<property name="dsthost">1.2.3.4/32</property>`) {
		t.Errorf("%s", raw)
	}
	again, err := Unmarshal(raw)
	if err != nil || !reflect.DeepEqual(rules, again) {
		t.Errorf("%v: %s became %s", err, Format(rules), Format(again))
	}
	for _, damaged := range []string{"", "<firewall", `<firewall version="2"><rules><rule/></rules></firewall>`,
		`<firewall version="2"><rules><rule><properties><property name="action">hold</property></properties></rule></rules></firewall>`} {
		if _, err := Unmarshal([]byte(damaged)); err == nil {
			t.Errorf("%q was read", damaged)
		}
	}
}

func TestFileOfVersion1(t *testing.T) {
	for in, want := range map[string]string{
		`<QubesFirewallRules policy="deny"/>`: "error",
		`<firewall policy="deny" dns="allow" icmp="deny"><rule address="1.2.3.0" netmask="24" port="80" toport="90"/><rule address="example.com" netmask="32" proto="udp" port="53"/></firewall>`: "action=accept specialtarget=dns\naction=drop proto=icmp\naction=accept dst4=1.2.3.0/24 proto=tcp dstports=80-90\naction=accept dsthost=example.com proto=udp dstports=53-53\n",
		`<firewall policy="allow"><rule address="0.0.0.0" netmask="0" proto="icmp" expire="1700000000"/></firewall>`:                                                                              "action=accept specialtarget=dns\naction=accept proto=icmp\naction=drop expire=1700000000 proto=icmp\naction=accept\n",
	} {
		rules, err := Unmarshal([]byte(in))
		got := Format(rules)
		if err != nil {
			got = "error"
		}
		if got != want {
			t.Errorf("%s\nbecame %s (%v)", in, got, err)
		}
	}
}

func TestQubesDBLeavesOutTheOtherFamily(t *testing.T) {
	rules, err := Parse("action=accept dst4=1.2.3.4\naction=accept dst6=::1\naction=accept dsthost=example.com proto=tcp dstports=443 comment=x\naction=drop expire=5\naction=accept specialtarget=dns\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"policy": "drop", "0000": "action=accept dst4=1.2.3.4/32",
		"0002": "action=accept dsthost=example.com proto=tcp dstports=443-443", "0004": "action=accept specialtarget=dns"}
	if got := QubesDB(rules, false, time.Unix(6, 0)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("%v", got)
	}
	if got := QubesDB(rules, true, time.Unix(6, 0)); got["0001"] != "action=accept dst6=::1/128" || got["0000"] != "" {
		t.Errorf("%v", got)
	}
}

func FuzzParseRule(f *testing.F) {
	for _, s := range []string{"action=accept", "action=drop dst4=1.2.3.4/8 proto=tcp dstports=1-2 expire=7 comment=a b", "action=accept dst6=::/0 proto=icmp icmptype=8", "action=accept dsthost=a.b specialtarget=dns", "comment="} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, line string) {
		r, err := ParseRule(line)
		if err != nil {
			return
		}
		again, err := ParseRule(r.String())
		if err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%q: %+v became %+v (%v)", line, r, again, err)
		}
		raw, err := Marshal([]Rule{r})
		if err != nil {
			t.Fatal(err)
		}
		read, err := Unmarshal(raw)
		r.Comment = strings.TrimSpace(r.Comment) // a file's white space says nothing
		if err != nil || !reflect.DeepEqual([]Rule{r}, read) {
			t.Fatalf("%s: %+v (%v)", raw, read, err)
		}
	})
}

func FuzzFile(f *testing.F) {
	f.Add([]byte(`<firewall version="2"><rules><rule><properties><property name="action">accept</property></properties></rule></rules></firewall>`))
	f.Add([]byte(`<firewall policy="deny" dns="allow"><rule address="1.2.3.0" netmask="24" port="80"/></firewall>`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		rules, err := Unmarshal(raw)
		if err != nil {
			return
		}
		for _, r := range rules {
			if _, err := ParseRule(r.String()); err != nil {
				t.Fatalf("%q: %v", r, err)
			}
		}
	})
}
