package query

import (
	"context"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"cubicle/daemon/policy"
)

func TestRequests(t *testing.T) {
	far, none := "far", ""
	for text, want := range map[string]Request{
		"source=work\nintended_target=mail\nservice_and_arg=t.Svc+x\n\n": {Source: "work", Target: "mail", Service: "t.Svc+x"},
		"source=work\nintended_target=\nservice_and_arg=t.Svc\nrequested_source=far\nassume_yes_for_ask=yes\njust_evaluate=yes\n\n": {Source: "work",
			Service: "t.Svc", RequestedSource: &far, AssumeYes: true, JustEvaluate: true},
		"source=work\nintended_target=@default\nservice_and_arg=a=b\nrequested_source=\n\n": {Source: "work", Target: "@default", Service: "a=b", RequestedSource: &none},
	} {
		got, err := ReadRequest(strings.NewReader(text + "more"))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
		if raw, err := want.Bytes(); err != nil || string(raw) != text {
			t.Errorf("%q, %v, want %q", raw, err, text)
		}
	}
	for _, bad := range []string{
		"", "\n", "source=work\n\n", "source=work\nintended_target=mail\nservice_and_arg=t\n", "source=work\nintended_target=mail\nservice_and_arg=t",
		"source=work\nsource=work\nintended_target=mail\nservice_and_arg=t\n\n", "source=work\nintended_target=mail\nservice_and_arg=t\nx=y\n\n",
		"source=work\nintended_target=mail\nservice_and_arg=t\njust_evaluate=True\n\n", "source\nintended_target=mail\nservice_and_arg=t\n\n",
		"source=" + strings.Repeat("x", maxRequest) + "\nintended_target=mail\nservice_and_arg=t\n\n",
	} {
		if got, err := ReadRequest(strings.NewReader(bad)); err == nil {
			t.Errorf("%.80q: %+v", bad, got)
		}
	}
	if raw, err := (Request{Source: "a\nresult=allow", Service: "s"}).Bytes(); err == nil {
		t.Errorf("%q", raw)
	}
}

func TestAnswers(t *testing.T) {
	for text, want := range map[string]Answer{
		"result=deny\n": {},
		"result=allow\nuser=DEFAULT\ntarget=mail\ntarget_uuid=uuid:2\nautostart=True\nrequested_target=mail\n": {Allowed: true, User: "DEFAULT", Target: "mail",
			TargetUUID: "uuid:2", Autostart: true, RequestedTarget: "mail"},
		"result=allow\nuser=root\ntarget=dom0\nautostart=False\nrequested_target=@default\n": {Allowed: true, User: "root", Target: "dom0", RequestedTarget: "@default"},
		"result=allow\nuser=DEFAULT\ntarget=relay\ntarget_uuid=uuid:c\nautostart=True\nrequested_target=far\nservice=tunnel.SSH+far+t.Svc+\npolicy_source=x\n": {
			Allowed: true, User: "DEFAULT", Target: "relay", TargetUUID: "uuid:c", Autostart: true, RequestedTarget: "far", Service: "tunnel.SSH+far+t.Svc+", PolicySource: "x"},
	} {
		if got := want.String(); got != text {
			t.Errorf("%q, want %q", got, text)
		}
		if got, err := ParseAnswer(text, false); err != nil || got != want {
			t.Errorf("%q: %+v, %v", text, got, err)
		}
	}
	if got, err := ParseAnswer("result=allow\n", true); err != nil || !got.Allowed || got.String() != "result=allow\n" {
		t.Errorf("%+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "\n", "result=allow\n", "result=deny", "result=yes\n", "result=deny\nuser=a\n", "result=deny\nresult=deny\n", "result=deny\n\x00",
		"result=allow\nuser=a\ntarget=b\nautostart=yes\nrequested_target=b\n", "result=allow\nuser=a\ntarget=\nautostart=True\nrequested_target=b\n",
		"result=deny\nx=" + strings.Repeat("y", maxAnswer) + "\n",
	} {
		if got, err := ParseAnswer(bad, false); err == nil {
			t.Errorf("%.80q: %+v", bad, got)
		}
	}
}

func TestDecisionsAreAnswers(t *testing.T) {
	if got := Of(policy.Decision{Action: policy.Ask, Targets: []string{"mail"}}); got.Allowed {
		t.Errorf("%+v", got)
	}
	got := Of(policy.Decision{Action: policy.Allow, Target: "mail", TargetUUID: "uuid:2", Autostart: true, Requested: "mail"})
	if got != (Answer{Allowed: true, User: "DEFAULT", Target: "mail", TargetUUID: "uuid:2", Autostart: true, RequestedTarget: "mail"}) {
		t.Errorf("%+v", got)
	}
}

func TestAsk(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			if r, err := ReadRequest(conn); err == nil {
				_, _ = conn.Write([]byte(Answer{Allowed: r.Target == "mail", User: "u", Target: r.Target, RequestedTarget: r.Target}.String()))
			}
			conn.Close()
		}
	}()
	for target, want := range map[string]bool{"mail": true, "web": false} {
		if got, err := Ask(context.Background(), path, Request{Source: "work", Target: target, Service: "t.Svc"}); err != nil || got.Allowed != want {
			t.Errorf("%s: %+v, %v", target, got, err)
		}
	}
	if _, err := Ask(context.Background(), path+"x", Request{}); err == nil {
		t.Error("nobody is there")
	}
}

func FuzzRequest(f *testing.F) {
	f.Add("source=work\nintended_target=mail\nservice_and_arg=t.Svc+x\nrequested_source=\njust_evaluate=no\n\n")
	f.Add("source=\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ReadRequest(strings.NewReader(text))
		if err != nil {
			return
		}
		raw, err := r.Bytes()
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		if again, err := ReadRequest(strings.NewReader(string(raw))); err != nil || !reflect.DeepEqual(r, again) {
			t.Fatalf("%+v, %+v, %v", r, again, err)
		}
	})
}

func FuzzAnswer(f *testing.F) {
	f.Add("result=allow\nuser=DEFAULT\ntarget=mail\ntarget_uuid=uuid:2\nautostart=True\nrequested_target=mail\n", false)
	f.Add("result=deny\nmore=x\n", true)
	f.Fuzz(func(t *testing.T, text string, evaluated bool) {
		a, err := ParseAnswer(text, evaluated)
		if err != nil {
			return
		}
		if again, err := ParseAnswer(a.String(), evaluated); err != nil || a != again {
			t.Fatalf("%q: %+v, %+v, %v", text, a, again, err)
		}
	})
}
