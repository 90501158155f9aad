package router

import (
	"context"
	"errors"
	"fmt"
	"maps"

	"cubicle/daemon/qrexec/control"
	"cubicle/daemon/qubesdb"
	"cubicle/daemon/vchan"
)

// Describe has f called for each qube that comes up, before its machine
// starts. f is to Say what is in the qube's database: until then nobody can
// read it. Qubes that are up already are the caller's to Say.
func (r *Router) Describe(f func(q control.Qube)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.onUp = f
}

// OnWrite has f called when a qube wrote one of control.Watched. f must not
// block for long: qrexecd's other messages wait.
func (r *Router) OnWrite(f func(d vchan.Domain, path string)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wrote = f
}

// Say makes keys what dom0 has to say in a qube's database. Only what has
// changed is sent; a domain that is not up is passed over.
func (r *Router) Say(d vchan.Domain, keys map[string]string) {
	r.mu.Lock()
	l := r.up[d]
	r.mu.Unlock()
	if l == nil {
		return
	}
	l.saying.Lock()
	defer l.saying.Unlock()
	m := control.Message{Kind: control.Update, Domain: d, Whole: l.keys == nil, Changes: qubesdb.Diff(l.keys, keys)}
	r.mu.Lock()
	conn := r.conn
	r.mu.Unlock()
	l.keys = maps.Clone(keys)
	if m.Whole || len(m.Changes) > 0 {
		r.tell(conn, m)
	}
}

// sayAll tells a qrexecd that knows nothing.
func (l *link) sayAll(conn *control.Conn) error {
	l.saying.Lock()
	defer l.saying.Unlock()
	if l.keys == nil {
		return nil // nobody has said anything yet
	}
	return conn.Send(control.Message{Kind: control.Update, Domain: l.qube.Domain, Whole: true, Changes: qubesdb.Diff(nil, l.keys)})
}

// Entries asks for the entries of a qube's database whose path begins with
// prefix. What the qube wrote is as hostile as everything else of it: within
// the database's limits, any bytes but NUL.
func (r *Router) Entries(ctx context.Context, d vchan.Domain, prefix string) (map[string]string, error) {
	answer := make(chan control.Message, 1)
	r.mu.Lock()
	conn := r.conn
	r.asks++
	id := r.asks
	if conn != nil {
		r.asked[id] = answer
	}
	r.mu.Unlock()
	if conn == nil {
		return nil, errors.New("read the qube's database: qrexecd is not running")
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.asked, id)
	}()
	if err := conn.Send(control.Message{Kind: control.Query, Domain: d, Query: id, Path: prefix}); err != nil {
		return nil, fmt.Errorf("read the qube's database: %w", err)
	}
	select {
	case m := <-answer:
		if m.Error != "" {
			return nil, fmt.Errorf("read the qube's database: qrexecd: %s", m.Error)
		}
		entries := make(map[string]string, len(m.Entries))
		for path, value := range m.Entries {
			entries[path] = string(value)
		}
		return entries, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("read the qube's database: %w", context.Cause(ctx))
	case <-r.done:
		return nil, errEnding
	}
}

func (r *Router) answered(m control.Message) {
	r.mu.Lock()
	answer := r.asked[m.Query]
	delete(r.asked, m.Query)
	r.mu.Unlock()
	if answer != nil {
		answer <- m
	}
}

// failAsked answers what the last qrexecd was asked; mu is held.
func (r *Router) failAsked() {
	for id, answer := range r.asked {
		delete(r.asked, id)
		answer <- control.Message{Error: "it has gone"}
	}
}
