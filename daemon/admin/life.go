package admin

import (
	"context"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"

	"cubicle/daemon/core"
	"cubicle/daemon/qube"
)

// lifeMethods are spec/admin-api.md §2.3.
func lifeMethods() map[string]method {
	m := map[string]method{
		"admin.vm.CreateDisposable": {onAny, maybe, maybe, createDisposable},
		"admin.vm.Remove":           {onAny, absent, absent, remove},
		"admin.vm.Start":            {onAny, absent, absent, start},
		"admin.vm.Shutdown":         {onAny, maybe, absent, shutdown},
		"admin.vm.Kill":             {onAny, absent, absent, kill},
		"admin.vm.Pause":            {onAny, absent, absent, pause},
		"admin.vm.Unpause":          {onAny, absent, absent, unpause},
		"admin.vm.Suspend":          {onAny, absent, absent, suspend},
		"admin.vm.Resume":           {onAny, absent, absent, resume},
		"admin.vm.CurrentState":     {onAny, absent, absent, currentState},
		"admin.vm.notes.Get":        {onQube, absent, absent, getNotes},
		"admin.vm.notes.Set":        {onQube, absent, contents, setNotes},
	}
	for _, class := range qube.Classes() {
		if class == qube.AdminVM {
			continue
		}
		m["admin.vm.Create."+string(class)] = method{onDom0, maybe, needed, create(class, false)}
		m["admin.vm.CreateInPool."+string(class)] = method{onDom0, maybe, needed, create(class, true)}
	}
	return m
}

func create(class qube.Class, inPool bool) func(context.Context, *call) (string, error) {
	return func(ctx context.Context, c *call) (string, error) {
		n := core.NewQube{Class: string(class), Creator: c.source.Name(), Pools: map[string]string{}}
		if c.req.Arg != "" {
			if !class.HasTemplate() {
				return "", core.Failf(core.ProtocolViolation, "a %s has no template", class)
			}
			t, err := c.lookup(c.req.Arg)
			if err != nil {
				return "", err
			}
			n.Template = string(t.Name())
		}
		words, err := words(string(c.req.Payload), inPool)
		if err != nil {
			return "", err
		}
		n.Name, n.Label = words["name"], words["label"]
		everywhere, all := words["pool"]
		for key, value := range words {
			if volume, ok := strings.CutPrefix(key, "pool:"); ok {
				n.Pools[volume] = value
			}
		}
		if all && len(n.Pools) > 0 {
			return "", core.Failf(core.ProtocolViolation, "pool and pool:VOLUME exclude each other")
		}
		if all {
			n.Pools["private"], n.Pools["volatile"] = everywhere, everywhere
			if !class.HasTemplate() {
				n.Pools["root"] = everywhere
			}
			if class == qube.DispVM {
				delete(n.Pools, "private")
			}
		}
		job, err := c.core.Create(n)
		return c.finish(ctx, job, err)
	}
}

// words reads the parameters of a new qube: key=value, separated by spaces.
func words(payload string, inPool bool) (map[string]string, error) {
	found := map[string]string{}
	for _, word := range strings.Split(payload, " ") {
		key, value, ok := strings.Cut(word, "=")
		if _, twice := found[key]; !ok || twice {
			return nil, core.Failf(core.ProtocolViolation, "bad parameter %q", printable(word))
		}
		switch {
		case key == "name", key == "label", inPool && key == "pool":
		case inPool && isVolumeName(strings.TrimPrefix(key, "pool:")):
		default:
			return nil, core.Failf(core.ProtocolViolation, "unknown parameter %q", printable(key))
		}
		found[key] = value
	}
	_, named := found["name"]
	_, labelled := found["label"]
	if !named || !labelled {
		return nil, core.Failf(core.ProtocolViolation, "name and label are needed")
	}
	return found, nil
}

// isVolumeName reports whether a qube may have a volume of that name.
func isVolumeName(s string) bool {
	switch s {
	case "root", "private", "volatile", "kernel":
		return true
	}
	return false
}

func createDisposable(ctx context.Context, c *call) (string, error) {
	byUUID := string(c.req.Payload) == "uuid"
	switch {
	case c.req.Arg == "preload":
		return "", core.Failf(core.NotImplemented, "disposables are not started in advance yet")
	case c.req.Arg != "":
		return "", core.Failf(core.ProtocolViolation, "unknown argument %q", printable(c.req.Arg))
	case len(c.req.Payload) > 0 && !byUUID:
		return "", core.Failf(core.ProtocolViolation, "the payload is uuid or empty")
	}
	d, err := c.core.CreateDisposable(c.dest.UUID(), c.source.Name())
	if err == nil {
		err = c.core.Wait(ctx, d.Job)
	}
	if err != nil {
		return "", err
	}
	if byUUID {
		return "uuid:" + string(d.UUID), nil
	}
	return string(d.Name), nil
}

func remove(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Remove(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func start(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Start(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func shutdown(ctx context.Context, c *call) (string, error) {
	force, wait := false, false
	switch c.req.Arg {
	case "":
	case "force":
		force = true
	case "wait":
		wait = true
	case "force+wait":
		force, wait = true, true
	default:
		return "", core.Failf(core.ProtocolViolation, "unknown argument %q", printable(c.req.Arg))
	}
	job, err := c.core.Shutdown(ctx, c.dest.UUID(), force)
	if err != nil || !wait {
		return "", err
	}
	return c.finish(ctx, job, nil)
}

func kill(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Kill(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func pause(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Pause(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func unpause(ctx context.Context, c *call) (string, error) {
	job, err := c.core.Unpause(c.dest.UUID())
	return c.finish(ctx, job, err)
}

func suspend(ctx context.Context, c *call) (string, error) {
	return "", c.core.Suspend(ctx, c.dest.UUID())
}

func resume(ctx context.Context, c *call) (string, error) {
	return "", c.core.Resume(ctx, c.dest.UUID())
}

func currentState(ctx context.Context, c *call) (string, error) {
	mem, limit, cpu, err := c.core.Measure(ctx, c.dest.UUID())
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("mem=%d mem_static_max=%d cputime=%d power_state=%s", mem>>10, limit>>10, cpu.Nanoseconds(), c.dest.State()), nil
}

func getNotes(_ context.Context, c *call) (string, error) { return c.core.Notes(c.dest.UUID()) }

// maxNotes is the size limit of notes in bytes. Upstream's limit of a request
// is smaller.
const maxNotes = 256000

func setNotes(_ context.Context, c *call) (string, error) {
	raw, err := c.payload(maxNotes)
	switch {
	case err != nil:
		return "", err
	case len(raw) == 0:
		return "", needed.check(false, c.req.Method, "a payload")
	case !utf8.Valid(raw) || len(raw) > maxNotes:
		return "", core.Failf(core.BadValue, "notes are UTF-8 of at most %d bytes", maxNotes)
	}
	text := strings.Map(func(r rune) rune {
		if r == '\t' || r == '\n' || unicode.IsPrint(r) {
			return r
		}
		return '_'
	}, string(raw))
	return "", c.core.SetNotes(c.dest.UUID(), text)
}
