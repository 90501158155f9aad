// Package qubesdb is the key-value store that each qube sees
// (spec/platform.md §3). Every running qube has one database twice: dom0's in
// qrexecd, and the qube's own; both are kept equal over vchan port 111. Local
// programs read, write and watch either of them on UNIX sockets.
//
// A DB is one such copy. Serve offers it on a local socket, ServeQube is
// dom0's end of the channel, FollowDom0 the qube's. Client is for programs
// that use a local socket. What is not here is where values come from: that
// is qubesd's (package daemon/qubesdb/keys).
//
// Lock order: DB.mu, then a queue's. Nothing blocks under DB.mu.
package qubesdb

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
)

// origin tells who wrote an entry last.
type origin uint8

const (
	local  origin = iota // a program on this side
	remote               // the other side, over the channel
	pinned               // qubesd: the qube cannot change it
)

type entry struct {
	value  string
	origin origin
	// unsent: written here while the other side could not be told.
	unsent bool
}

// Limits bound what the other side may store. Zero values mean no limit.
type Limits struct {
	Entries int
	Bytes   int // of paths and values
}

// guestLimits are for dom0's copy: what a qube writes costs dom0 memory.
var guestLimits = Limits{Entries: 2048, Bytes: 256 << 10}

// DB is one copy of a qube's database. It is safe for concurrent use.
type DB struct {
	limits Limits // of entries whose origin is remote

	mu      sync.Mutex // guards what follows
	entries map[string]entry
	paths   []string // sorted
	remote  Limits   // what the other side stores now
	// conns are the connections that have watches.
	conns map[*conn]struct{}
	peer  *conn // the other side, once it is in step
	hooks []func(path string)
	step  chan struct{} // closed: a dump of dom0's has arrived
}

// NewForQube returns dom0's copy of a qube's database: empty, and limited in
// what the qube may store.
func NewForQube() *DB { return newDB(guestLimits) }

// NewInQube returns the qube's own copy.
func NewInQube() *DB { return newDB(Limits{}) }

func newDB(l Limits) *DB {
	return &DB{limits: l, entries: map[string]entry{}, conns: map[*conn]struct{}{}, step: make(chan struct{})}
}

// InStep is closed once the qube's copy has been what dom0's was.
func (d *DB) InStep() <-chan struct{} { return d.step }

// Read returns an entry's value.
func (d *DB) Read(path string) (string, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e, ok := d.entries[path]
	return e.value, ok
}

// All returns the entries whose path begins with prefix.
func (d *DB) All(prefix string) map[string]string {
	d.mu.Lock()
	defer d.mu.Unlock()
	found := map[string]string{}
	for _, p := range d.under(prefix) {
		found[p] = d.entries[p].value
	}
	return found
}

// Notify calls f with the path of every entry (trailing "/": subtree) that the
// other side writes or removes from now on, also when that changes nothing:
// it is how a qube signals. f must neither block nor use the DB.
func (d *DB) Notify(f func(path string)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hooks = append(d.hooks, f)
}

// Write stores an entry on behalf of this side, and tells the other.
func (d *DB) Write(path, value string) error {
	if err := errors.Join(CheckPath(path), CheckValue(value)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.store(path, value, local)
	d.fire(path)
	return nil
}

// Change is one step of an update: Path is written, or with Remove set,
// removed with (trailing "/") or without what is below it.
type Change struct {
	Path   string `json:"path"`
	Value  string `json:"value,omitempty"`
	Remove bool   `json:"remove,omitempty"`
}

// Apply makes dom0's changes in their order. With whole set the changes are
// all there is of dom0's: entries of it that they do not name go away.
func (d *DB) Apply(whole bool, changes []Change) error {
	for _, c := range changes {
		path := c.Path
		if c.Remove {
			path = strings.TrimSuffix(path, "/")
		}
		if err := errors.Join(CheckPath(path), CheckValue(c.Value)); err != nil {
			return fmt.Errorf("%s: %w", c.Path, err)
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if whole {
		d.keepPinned(changes)
	}
	for _, c := range changes {
		switch old, ok := d.entries[c.Path]; {
		case c.Remove:
			d.remove(c.Path, local)
		case whole && ok && old.value == c.Value:
			old.origin = pinned
			d.entries[c.Path] = old
		default:
			// Also when the value is the same: writing is a signal to
			// whoever watches (spec/platform.md §5.2).
			d.store(c.Path, c.Value, pinned)
			d.fire(c.Path)
		}
	}
	return nil
}

// keepPinned removes the pinned entries that changes do not write.
func (d *DB) keepPinned(changes []Change) {
	named := map[string]bool{}
	for _, c := range changes {
		named[c.Path] = true
	}
	for _, p := range slices.Clone(d.paths) {
		if d.entries[p].origin == pinned && !named[p] {
			d.remove(p, local)
		}
	}
}

// Diff returns the changes that lead from one set of dom0's entries to
// another, in an order that readers can rely on: a qube's firewall rules are
// replaced as a whole, and the empty entry above them is written last, for
// that is what the qube's firewall waits for (spec/platform.md §5.2).
func Diff(from, to map[string]string) []Change {
	var changes []Change
	rules := map[string]bool{} // firewalls whose rules have changed
	note := func(path string) bool {
		rest, ok := strings.CutPrefix(path, firewallPrefix)
		if ok {
			address, _, _ := strings.Cut(rest, "/")
			rules[firewallPrefix+address] = true
		}
		return ok
	}
	for _, path := range slices.Sorted(maps.Keys(from)) {
		if has(to, path) {
			continue
		}
		if !note(path) {
			changes = append(changes, Change{Path: path, Remove: true})
		}
	}
	for _, path := range slices.Sorted(maps.Keys(to)) {
		if old, ok := from[path]; ok && old == to[path] {
			continue
		}
		if !note(path) {
			changes = append(changes, Change{Path: path, Value: to[path]})
		}
	}
	for _, base := range slices.Sorted(maps.Keys(rules)) {
		changes = append(changes, Change{Path: base + "/", Remove: true})
		for _, path := range slices.Sorted(maps.Keys(to)) {
			if strings.HasPrefix(path, base+"/") {
				changes = append(changes, Change{Path: path, Value: to[path]})
			}
		}
		if has(to, base) {
			changes = append(changes, Change{Path: base, Value: to[base]})
		} else {
			changes = append(changes, Change{Path: base, Remove: true})
		}
	}
	return changes
}

const firewallPrefix = "/qubes-firewall/"

func has(m map[string]string, key string) bool { _, ok := m[key]; return ok }

// under are the sorted paths with a prefix; mu is held, and the result is
// only good while it is.
func (d *DB) under(prefix string) []string {
	begin, _ := slices.BinarySearch(d.paths, prefix)
	end := begin
	for end < len(d.paths) && strings.HasPrefix(d.paths[end], prefix) {
		end++
	}
	return d.paths[begin:end]
}

// errFull is the error of a qube that wants to store too much.
var errFull = errors.New("the other side stores too much")

// errPinned is the error of a qube that wants to change what is dom0's.
var errPinned = errors.New("the entry is dom0's")

// store puts an entry, and sends it on unless it came from there; mu is held,
// and path and value are checked.
func (d *DB) store(path, value string, from origin) error {
	old, exists := d.entries[path]
	if from == remote {
		if exists && old.origin == pinned {
			if old.value == value {
				return nil // a signal
			}
			return errPinned
		}
		next := d.remote
		if exists && old.origin == remote {
			next.Entries--
			next.Bytes -= len(path) + len(old.value)
		}
		next.Entries++
		next.Bytes += len(path) + len(value)
		if d.limits.Entries > 0 && next.Entries > d.limits.Entries || d.limits.Bytes > 0 && next.Bytes > d.limits.Bytes {
			return errFull
		}
	}
	if exists {
		d.account(path, old, -1)
	} else {
		i, _ := slices.BinarySearch(d.paths, path)
		d.paths = slices.Insert(d.paths, i, path)
	}
	e := entry{value: value, origin: from}
	if from != remote {
		e.unsent = !d.tell(Message{Type: Write, Path: path, Data: value})
	}
	d.entries[path] = e
	d.account(path, e, 1)
	return nil
}

// account counts an entry of the other side in (1) or out (-1).
func (d *DB) account(path string, e entry, n int) {
	if e.origin == remote {
		d.remote.Entries += n
		d.remote.Bytes += n * (len(path) + len(e.value))
	}
}

// tell sends a message to the other side, and reports whether that is in
// step. A peer that does not read is cut off: it starts over when it is back.
func (d *DB) tell(m Message) bool {
	if d.peer == nil {
		return false
	}
	if !d.peer.out.put(m) {
		d.peer.cut()
		d.peer = nil
		return false
	}
	return true
}

// remove takes an entry or (trailing "/") all below it away, tells the other
// side and fires watches. It reports whether there was anything; mu is held.
// The other side cannot remove what is dom0's.
func (d *DB) remove(path string, from origin) bool {
	var gone []string
	if strings.HasSuffix(path, "/") {
		gone = slices.Clone(d.under(path))
	} else if _, ok := d.entries[path]; ok {
		gone = []string{path}
	}
	if from == remote {
		gone = slices.DeleteFunc(gone, func(p string) bool { return d.entries[p].origin == pinned })
	}
	if len(gone) == 0 {
		return false
	}
	for _, p := range gone {
		d.account(p, d.entries[p], -1)
		delete(d.entries, p)
		i, _ := slices.BinarySearch(d.paths, p)
		d.paths = slices.Delete(d.paths, i, i+1)
	}
	if from != remote {
		// One message: the other side has the same below the path.
		d.tell(Message{Type: Remove, Path: path})
	}
	for _, p := range gone {
		d.fire(p)
	}
	return true
}

// fire tells the watchers of a path; mu is held.
func (d *DB) fire(path string) {
	for c := range d.conns {
		if c.watching(path) && !c.out.put(Message{Type: WatchEvent, Path: path}) {
			c.cut() // it does not read: it would miss events
		}
	}
}

// heard tells the hooks; mu is held.
func (d *DB) heard(path string) {
	for _, f := range d.hooks {
		f(path)
	}
}
