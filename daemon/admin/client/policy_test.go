package client

import (
	"context"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"cubicle/daemon/qrexec/wire"
)

func TestPolicyServicesAnswerBare(t *testing.T) {
	c := &Client{Socket: filepath.Join(t.TempDir(), "s")}
	l, err := net.Listen("unix", c.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, test := range []struct {
		call            wire.RPC
		in, want, reply string
		out, errOut     string
		status          int
	}{
		{wire.RPC{Service: "policy.Get", Argument: "30-user", HasArgument: true, Source: "work", TargetType: "keyword", Target: "adminvm"}, "",
			"policy.Get+30-user work name dom0\x00", "0\x00sha256:0\n# mine\n", "sha256:0\n# mine\n", "", 0},
		{wire.RPC{Service: "policy.List", Source: "work", TargetType: "keyword", Target: "default"}, "", "policy.List work name dom0\x00", "0\x00", "", "", 0},
		{wire.RPC{Service: "policy.Replace", Argument: "a", Source: "work", TargetType: "name", Target: "dom0"}, "any\n# \x00\n",
			"policy.Replace+a work name dom0\x00any\n# \x00\n", "2\x00PolicyAdminTokenException\x00\x00it changed by 50%%\x00", "", "PolicyAdminTokenException: it changed by 50%\n", 1},
		{wire.RPC{Service: "policy.RegisterArgument", Argument: "u2f.Authenticate", Source: "sys-usb", TargetType: "name", Target: "work"}, "0123",
			"policy.RegisterArgument+u2f.Authenticate sys-usb name work\x000123", "0\x00", "", "", 0},
		{wire.RPC{Service: "policy.List", Source: "work"}, "", "policy.List work name dom0\x00", "", "", "QubesDaemonAccessError: got empty response from qubesd\n", 2},
	} {
		if !IsPolicyService(test.call.Service) {
			t.Errorf("%s is none", test.call.Service)
		}
		heard := make(chan string, 1)
		go func() {
			conn, err := l.Accept()
			if err != nil {
				heard <- err.Error()
				return
			}
			defer conn.Close()
			raw, _ := io.ReadAll(conn)
			_, _ = io.WriteString(conn, test.reply)
			heard <- string(raw)
		}()
		var out, errOut strings.Builder
		status := c.ServePolicy(context.Background(), &test.call, strings.NewReader(test.in), &out, &errOut)
		if got := <-heard; got != test.want {
			t.Errorf("asked %q, want %q", got, test.want)
		}
		if out.String() != test.out || errOut.String() != test.errOut || status != test.status {
			t.Errorf("%+v: %q, %q, status %d", test.call, out.String(), errOut.String(), status)
		}
	}
	for _, other := range []string{"policy.Ask", "policy.EvalSimple", "policy.include.GetFiles", "List", "admin.vm.List", "policy.include.RegisterArgument"} {
		if IsPolicyService(other) {
			t.Errorf("%s is one", other)
		}
	}
}
