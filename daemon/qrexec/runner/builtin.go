package runner

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"strings"
	"time"

	adminclient "cubicle/daemon/admin/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/qrexec/client"
	"cubicle/daemon/qrexec/service"
	"cubicle/daemon/qrexec/wire"
)

// builtins are the services that need no file. A file of the same name in
// paths.Root.RPC comes first.
func builtins(root paths.Root) func(*wire.RPC) (service.Builtin, bool) {
	misc := unixAddr(root.QubesdMisc())
	byName := map[string]service.Builtin{
		"qubes.FeaturesRequest": {Addr: misc},
		"qubes.NotifyUpdates":   {Addr: misc},
		"qubes.NotifyTools":     {Addr: misc},
	}
	qubesd := service.Builtin{Addr: unixAddr(root.Qubesd())}
	api := adminclient.New(root)

	return func(r *wire.RPC) (service.Builtin, bool) {
		if b, ok := byName[r.Service]; ok {
			return b, true
		}
		// Its callers expect a bare reply, and a refusal as status and message.
		if adminclient.IsPolicyService(r.Service) {
			return service.Builtin{Run: func(ctx context.Context, s service.Streams) int {
				return api.ServePolicy(ctx, r, s.Stdin, s.Stdout, s.Stderr)
			}}, true
		}
		if strings.HasPrefix(r.Service, "admin.") { // whose replies have a framing of their own
			return qubesd, true
		}
		switch r.Service {
		case "qubes.GetDate":
			c := clock{root: root, source: r.Source, now: time.Now}
			return service.Builtin{Run: func(ctx context.Context, s service.Streams) int { return c.date(ctx, r.Argument, s) }}, true
		case "qubes.GetRandomizedTime":
			return service.Builtin{Run: func(_ context.Context, s service.Streams) int { return randomizedTime(time.Now(), rand.Reader, s) }}, true
		}
		return service.Builtin{}, false
	}
}

func unixAddr(path string) net.Addr { return &net.UnixAddr{Net: "unix", Name: path} }

// clock answers qubes.GetDate (spec/services.md §10).
type clock struct {
	root   paths.Root
	source string // who asks
	now    func() time.Time
}

const (
	dateSeconds     = "2006-01-02T15:04:05+00:00\n"
	dateNanoseconds = "2006-01-02T15:04:05,000000000+00:00\n"

	clockTimeout = 10 * time.Second
)

// date gives the clock qube's date where one runs, and else dom0's own.
func (c clock) date(ctx context.Context, argument string, s service.Streams) int {
	layout := dateSeconds
	switch argument {
	case "":
	case "nanoseconds":
		layout = dateNanoseconds
	default:
		return 1
	}
	ctx, cancel := context.WithTimeout(ctx, clockTimeout)
	defer cancel()
	text, err := c.fromClockQube(ctx, argument, layout)
	if err != nil {
		fmt.Fprintln(s.Stderr, err)
	}
	if text == "" {
		text = c.now().UTC().Format(layout)
	}
	if _, err := io.WriteString(s.Stdout, text); err != nil {
		return 1
	}
	return 0
}

// fromClockQube asks the clock qube. Empty is that there is none which runs,
// or that it is the one that asks.
func (c clock) fromClockQube(ctx context.Context, argument, layout string) (string, error) {
	admin := adminclient.New(c.root)
	value, err := admin.Call(ctx, "dom0", "admin.property.Get", "clockvm", nil)
	if err != nil {
		return "", fmt.Errorf("clock qube: %w", err)
	}
	_, name, _ := strings.Cut(value, " type=vm ")
	if name == "" || name == "dom0" || name == c.source {
		return "", nil
	}
	state, err := admin.Call(ctx, name, "admin.vm.CurrentState", "", nil)
	if err != nil {
		return "", fmt.Errorf("clock qube: %w", err)
	}
	if !slices.Contains(strings.Fields(state), "power_state=Running") {
		return "", nil
	}
	var out limited
	asks := "qubes.GetDate"
	if argument != "" {
		asks += "+" + argument
	}
	status, err := client.Run(ctx, client.Call{Root: c.root, Target: name, Command: client.Service("", asks), Stdout: &out})
	switch {
	case err != nil:
		return "", err
	case status != 0:
		return "", fmt.Errorf("the clock qube %s has no date: status %d", name, status)
	}
	// A qube's word: it is passed on only if it is a date and nothing else.
	if _, err := time.Parse(layout, string(out)); err != nil || len(out) != len(layout) {
		return "", fmt.Errorf("the clock qube %s answered something that is no date", name)
	}
	return string(out), nil
}

// limited keeps as much of an answer as a date is long, and one byte more.
type limited []byte

func (l *limited) Write(p []byte) (int, error) {
	if room := len(dateNanoseconds) + 1 - len(*l); room > 0 {
		*l = append(*l, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

// randomizedTime is qubes.GetRandomizedTime: the time, off by as much as 180 s
// and at a random instant of its second, so that two qubes that ask cannot be
// told to run on one machine (spec/services.md §10).
func randomizedTime(now time.Time, random io.Reader, s service.Streams) int {
	off, err := rand.Int(random, big.NewInt(2*180+1))
	if err != nil {
		fmt.Fprintln(s.Stderr, err)
		return 1
	}
	nanos, err := rand.Int(random, big.NewInt(int64(time.Second)))
	if err != nil {
		fmt.Fprintln(s.Stderr, err)
		return 1
	}
	if _, err := fmt.Fprintf(s.Stdout, "%d.%09d\n", now.Unix()+off.Int64()-180, nanos.Int64()); err != nil {
		return 1
	}
	return 0
}
