package supervise

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"cubicle/daemon/bus/client"
	"cubicle/daemon/vchan"

	"github.com/google/go-cmp/cmp"
)

func TestQubesWithADomainRun(t *testing.T) {
	got := running(map[string]client.Qube{
		"a": {Name: "work", XID: 0x8002, LabelIndex: 6, LabelColor: 0x3465a4},
		"b": {Name: "vault", XID: -1, LabelIndex: 8},
		"c": {Name: "dom0", XID: 0},
		"d": {Name: "untrusted", XID: 0x8001, LabelIndex: 1, LabelColor: 0xcc0000},
	})
	want := []Qube{{0x8001, "untrusted", 1, 0xcc0000}, {0x8002, "work", 6, 0x3465a4}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// People are told of what a running qube lacks when that is new, and not of why
// one has ended: who looks for it finds that at the qube.
func TestTroubleOfARunningQube(t *testing.T) {
	well, short := client.Qube{Name: "work", XID: 5}, client.Qube{Name: "work", XID: 5, Error: "out of memory: a program was ended"}
	off := client.Qube{Name: "work", XID: -1, Error: "it ended unexpectedly"}
	for _, test := range []struct {
		before, now client.Qube
		want        string
	}{
		{well, short, "out of memory: a program was ended"},
		{short, short, ""},
		{short, well, ""},
		{well, off, ""},
		{client.Qube{}, short, ""}, // it was so when we came
	} {
		n, ok := troubleOf(test.before, test.now)
		if n.Text != test.want || ok != (test.want != "") || ok && n.Title != "Trouble in work" {
			t.Errorf("%+v → %+v: %+v, %v", test.before, test.now, n, ok)
		}
	}
}

// A qube whose session fails at once is tried ever more rarely.
func TestFailuresBackOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		tries := 0
		s := &Supervisor{
			Source: Single{Domain: 1, Name: "work"},
			Dial: func(context.Context, vchan.Domain) (*vchan.Channel, error) {
				tries++
				return nil, errors.New("nobody there")
			},
			Log: slog.New(slog.DiscardHandler),
		}
		s.Serve(ctx)
		// 0.1+0.2+0.4+0.8+1.6+3.2 s, then every 5 s.
		if tries < 15 || tries > 18 {
			t.Errorf("%d tries in a minute", tries)
		}
	})
}
