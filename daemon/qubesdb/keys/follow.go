package keys

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
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
	// Timezone is the zone that qubes are told; Zone reads dom0's.
	Timezone string
	Log      *slog.Logger
}

// follower keeps the databases of running qubes.
type follower struct {
	Options

	mu    sync.Mutex // orders what is said; guards what follows
	seeds map[vchan.Domain]string
	// rules are firewalls that were read, until they change.
	rules map[qube.UUID][]firewall.Rule
}

// Follow keeps the databases of all running qubes until ctx ends, which is no
// error. It returns an error when it cannot follow the core any more.
func Follow(ctx context.Context, o Options) error {
	f := &follower{Options: o, seeds: map[vchan.Domain]string{}, rules: map[qube.UUID][]firewall.Rule{}}
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
		list, _, err := events.Next(ctx)
		if err != nil {
			return err
		}
		named, changed := false, map[qube.UUID]bool{}
		for _, e := range list {
			named = named || e.Name != "" && e.Name != "vm-stats"
			changed[e.Qube] = true
			if e.Name == "firewall-changed" {
				f.forgetRules(e.Qube)
			}
		}
		// What is told by name may concern any other qube: its clients, its
		// netvm, those based on it.
		f.say(func(q core.Qube) bool { return named || changed[q.UUID()] })
	}
}

// say looks at the running qubes that are wanted.
func (f *follower) say(wanted func(core.Qube) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	v := f.Core.View()
	if own, ok := v.Named(qube.Dom0); ok && wanted(own) {
		f.Router.Say(0, Own(own, f.host()))
	}
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

// survey prepares a look at a view; mu is held.
func (f *follower) survey(v *core.View) *Survey {
	return NewSurvey(v, f.host())
}

func (f *follower) host() Host {
	return Host{Timezone: f.Timezone, Now: time.Now(), Firewall: f.rulesOf}
}

// rulesOf are a qube's rules; mu is held. Without rules everything is dropped,
// which is right for those that cannot be read.
func (f *follower) rulesOf(q core.Qube) []firewall.Rule {
	rules, ok := f.rules[q.UUID()]
	if !ok {
		var err error
		if rules, err = f.Core.Firewall(q.UUID()); err != nil {
			f.Log.Error("a qube has no network: its firewall cannot be read", "qube", string(q.Name()), "error", err)
		}
		f.rules[q.UUID()] = rules
	}
	return rules
}

func (f *follower) forgetRules(id qube.UUID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.rules, id)
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

// Zone returns the name of the machine's time zone, such as Europe/Berlin; an
// empty string for one without a name, and UTC, as for all programs, where
// none is set.
func Zone(etc string) string {
	to, err := filepath.EvalSymlinks(filepath.Join(etc, "localtime"))
	if _, zone, ok := strings.Cut(to, "/zoneinfo/"); ok && err == nil {
		return zone
	}
	if b, err := os.ReadFile(filepath.Join(etc, "timezone")); err == nil {
		return strings.TrimSpace(string(b))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return "Etc/UTC"
	}
	return ""
}
