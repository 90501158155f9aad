package qvm

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/wire"
)

// outside is what a qube's tools call, TARGET SERVICE, and what that answers;
// what is not there the policy refuses.
type outside struct {
	replies map[string]string
	calls   []string
}

func (o *outside) call(_ context.Context, target, service string, in io.Reader, out, errOut io.Writer) (int, error) {
	payload, err := io.ReadAll(in)
	if err != nil {
		return 1, err
	}
	call := target + " " + service
	if len(payload) > 0 {
		call += " " + string(payload)
	}
	o.calls = append(o.calls, call)
	reply, ok := o.replies[target+" "+service]
	if !ok {
		return wire.StatusRefused, errors.New("request refused")
	}
	if text, failed := strings.CutPrefix(reply, "!"); failed {
		fmt.Fprintln(errOut, text)
		return 1, nil
	}
	_, err = io.WriteString(out, reply)
	return 0, err
}

// In a qube the tools see and do what the policy lets them.
func TestToolsInAQube(t *testing.T) {
	t.Setenv(paths.Env, t.TempDir())
	t.Setenv("DISPLAY", "")
	list := "0\x00dom0 class=AdminVM state=Running uuid=00000000-0000-0000-0000-000000000000\nwork class=AppVM state=Running uuid=11111111-1111-4111-8111-111111111111\n"
	o := &outside{replies: map[string]string{
		"dom0 admin.vm.List": list, "work admin.vm.List": strings.SplitAfter(list, "\n")[1],
		"work admin.vm.feature.CheckWithTemplate+vmexec": "0\x001", "work admin.vm.feature.CheckWithTemplate+supported-rpc.qubes.VMRootExec": "0\x001",
		"work admin.vm.property.Get+label": "0\x00default=False type=label red",
		"work admin.vm.tag.Set+mine":       "0\x00", "work qubes.VMExec+ls+--l": "file\n", "work qubes.VMShell": "shell\n", "work qubes.VMRootExec+id+a": "root\n",
		"dom0 policy.List": "30-user\n", "dom0 policy.include.List": "", "dom0 policy.Get+30-user": "sha256:00\n# mine\n", "dom0 policy.Remove+30-user": "!PolicyAdminTokenException: it has changed",
	}}
	o.replies["work admin.vm.List"] = "0\x00" + o.replies["work admin.vm.List"]
	for _, c := range []struct {
		line   string
		status int
		out    string
		errOut string
		calls  []string // the last of them
	}{
		{"qvm-ls --raw-list", 0, "dom0\nwork\n", "", []string{"dom0 admin.vm.List"}},
		{"qvm-ls --raw-data -O name,label,template", 0, "dom0|-|-\nwork|red|-\n", "", nil},
		{"qvm-ls --raw-data -O name,memory,kernel", 0, "dom0|-|-\nwork|-|-\n", "", nil},
		{"qvm-ls --raw-data -O name,colour", 2, "", "qvm-ls: error: no such column: COLOUR\n", nil},
		{"qvm-tags work add mine", 0, "", "", []string{"work admin.vm.tag.Set+mine"}},
		{"qvm-tags work add other", 1, "", "qvm-tags: error: dom0's policy does not allow admin.vm.tag.Set+other on work\n", nil},
		{"qvm-run -q -p work ls -l", 0, "file\n", "", []string{"work qubes.VMExec+ls+--l"}},
		{"qvm-run -q -p -u root work id a", 0, "root\n", "", []string{"work qubes.VMRootExec+id+a"}},
		{"qvm-run -q -p work pwd", 0, "shell\n", "", []string{"work qubes.VMShell pwd; exit\n"}},
		{"qvm-run -q -p -u me work pwd", 1, "", "qvm-run: error: from a qube it is dom0's policy that says as which user a service runs\n", nil},
		{"qvm-run -q -p --service work other.Svc", 1, "", "qvm-run: error: dom0's policy does not allow other.Svc in work\n", nil},
		{"qvm-policy list", 0, "30-user\n", "", nil},
		{"qubes-policy 30-user", 0, "# mine\n", "", nil},
		{"qvm-policy remove 30-user", 1, "", "qvm-policy: error: it has changed\n", []string{"dom0 policy.Remove+30-user any"}},
	} {
		o.calls = nil
		var out, errOut bytes.Buffer
		status := MainIn(context.Background(), Streams{strings.NewReader(""), &out, &errOut}, o.call, strings.Fields(c.line))
		last := o.calls[max(0, len(o.calls)-len(c.calls)):]
		if status != c.status || out.String() != c.out || errOut.String() != c.errOut || !slices.Equal(last, c.calls) && c.calls != nil {
			t.Errorf("%s: status %d, %q, %q after %q", c.line, status, out.String(), errOut.String(), o.calls)
		}
		// Each denial is shown to a person: only what the line asks for may be
		// denied.
		for _, call := range o.calls {
			if strings.Contains(call, "cubicle.") {
				t.Errorf("%s: %s", c.line, call)
			}
		}
	}
}
