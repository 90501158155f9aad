package keys

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"cubicle/daemon/core"
	"cubicle/daemon/network/firewall"
	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qube"
	"cubicle/daemon/vchan"
)

// Router is who keeps the databases (package daemon/core/router).
type Router interface {
	// Describe has f called for each qube that comes up; f is to Say.
	Describe(f func(q control.Qube))
	// Say makes keys what dom0 has to say in a database.
	Say(d vchan.Domain, keys map[string]string)
}

// Options are a follower's parameters.
type Options struct {
	Core   *core.Core
	Router Router
	// Firewall returns a qube's rules; nil: firewalls are not described.
	Firewall func(q core.Qube) []firewall.Rule
	// Timezone is the zone that qubes are told; Zone reads dom0's.
	Timezone string
}

// follower keeps the databases of running qubes.
type follower struct {
	Options

	mu     sync.Mutex // orders what is said; guards what follows
	seeds  map[vchan.Domain]string
	expiry time.Time // when the next rule ends; zero for none
}

// Follow keeps the databases of all running qubes until ctx ends, which is no
// error. It returns an error when it cannot follow the core any more.
func Follow(ctx context.Context, o Options) error {
	f := &follower{Options: o, seeds: map[vchan.Domain]string{}}
	for {
		events := o.Core.Subscribe()
		o.Router.Describe(f.up)
		f.say(func(core.Qube) bool { return true })
		err := f.follow(ctx, events)
		events.Close()
		if ctx.Err() != nil {
			return nil
		}
		if core.KindOf(err) != core.General {
			return fmt.Errorf("follow the qubes for their databases: %w", err)
		}
		// Too slow for the events: look at everything again.
	}
}

func (f *follower) follow(ctx context.Context, events *core.Subscription) error {
	for {
		list, _, err := f.next(ctx, events)
		if err != nil {
			return err
		}
		if list == nil { // a rule has ended
			f.say(func(core.Qube) bool { return true })
			continue
		}
		named, changed := false, map[qube.UUID]bool{}
		for _, e := range list {
			named = named || e.Name != "" && e.Name != "vm-stats"
			changed[e.Qube] = true
		}
		// What is told by name may concern any other qube: its clients, its
		// netvm, those based on it.
		f.say(func(q core.Qube) bool { return named || changed[q.UUID()] })
	}
}

// next waits for events, or until a firewall's rule ends: then it returns
// none.
func (f *follower) next(ctx context.Context, events *core.Subscription) ([]core.Event, *core.View, error) {
	f.mu.Lock()
	at := f.expiry
	f.mu.Unlock()
	if at.IsZero() {
		return events.Next(ctx)
	}
	until, cancel := context.WithDeadline(ctx, at)
	defer cancel()
	list, v, err := events.Next(until)
	if err != nil && until.Err() != nil && ctx.Err() == nil {
		f.mu.Lock()
		f.expiry = time.Time{}
		f.mu.Unlock()
		return nil, nil, nil
	}
	return list, v, err
}

// say looks at the running qubes that are wanted.
func (f *follower) say(wanted func(core.Qube) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.Core.View()
	var survey *Survey
	up := map[vchan.Domain]bool{}
	for _, q := range v.Qubes() {
		if !q.State().IsUp() || q.XID() <= 0 {
			continue
		}
		up[vchan.Domain(q.XID())] = true
		if !wanted(q) {
			continue
		}
		if survey == nil {
			survey = f.survey(v)
		}
		f.sayOne(survey, q, vchan.Domain(q.XID()))
	}
	// Those that are just coming up are not in the view yet.
	if len(f.seeds) > 2*len(up)+spareSeeds {
		maps.DeleteFunc(f.seeds, func(d vchan.Domain, _ string) bool { return !up[d] })
	}
}

const spareSeeds = 256

// up describes a qube that is about to run.
func (f *follower) up(q control.Qube) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.Core.View()
	if found, ok := v.Lookup(qube.UUID(q.UUID)); ok {
		f.sayOne(f.survey(v), found, q.Domain)
	}
}

// survey prepares a look at a view; mu is held. The qubes that are looked at
// tell when the next rule ends.
func (f *follower) survey(v *core.View) *Survey {
	h := Host{Timezone: f.Timezone, Now: time.Now()}
	if f.Firewall != nil {
		h.Firewall = func(q core.Qube) []firewall.Rule {
			rules := f.Firewall(q)
			if at, ok := firewall.NextExpiry(rules, h.Now); ok && (f.expiry.IsZero() || at.Before(f.expiry)) {
				f.expiry = at
			}
			return rules
		}
	}
	return NewSurvey(v, h)
}

// sayOne tells one database; mu is held.
func (f *follower) sayOne(y *Survey, q core.Qube, d vchan.Domain) {
	seed, ok := f.seeds[d]
	if !ok {
		var chance [64]byte
		rand.Read(chance[:])
		seed = base64.StdEncoding.EncodeToString(chance[:])
		f.seeds[d] = seed
	}
	keys := y.Of(q)
	keys["/qubes-random-seed"] = seed
	f.Router.Say(d, keys)
}

// Zone returns the name of the machine's time zone, such as Europe/Berlin, or
// an empty string.
func Zone(etc string) string {
	if to, err := filepath.EvalSymlinks(filepath.Join(etc, "localtime")); err == nil {
		if _, zone, ok := strings.Cut(to, "/zoneinfo/"); ok {
			return zone
		}
	}
	b, err := os.ReadFile(filepath.Join(etc, "timezone"))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}
