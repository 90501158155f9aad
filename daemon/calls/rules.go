package calls

import (
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/policy"
)

// settleTime is how long after its last change a file may still be changed
// without its stamp showing it: the clock of file systems has ticks.
const settleTime = 50 * time.Millisecond

// rules is the policy as the files have it now. Whether they have changed is
// looked up each time, which takes a system call a file and misses nothing.
type rules struct {
	dirs   policy.Dirs
	broken func(error) // told once of each fault

	mu      sync.Mutex // guards what follows
	policy  *policy.Policy
	err     error // why there is no policy: policy.Errors, or of the disk
	stamps  []stamp
	settled bool   // the stamps are old enough to show every change
	number  uint64 // counts the policies
	checked time.Time
	told    string // the fault that was told last
}

// stamp is what a file or folder looked like.
type stamp struct {
	path            string
	errno           error
	dev, ino        uint64
	size            int64
	mode            uint32
	changed, status unix.Timespec
}

func stampOf(path string) stamp {
	s := stamp{path: path}
	var st unix.Stat_t
	if s.errno = unix.Stat(path, &st); s.errno == nil {
		s.dev, s.ino, s.size, s.mode, s.changed, s.status = st.Dev, st.Ino, st.Size, st.Mode, st.Mtim, st.Ctim
	}
	return s
}

// now is the policy, or why there is none, and its number.
func (r *rules) now() (*policy.Policy, uint64, error) { return r.recent(0) }

// recent is now for who asks often: changes within the given time may be
// missed.
func (r *rules) recent(age time.Duration) (*policy.Policy, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if age == 0 || r.number == 0 || time.Since(r.checked) >= age {
		if r.number == 0 || !r.settled || slices.ContainsFunc(r.stamps, func(s stamp) bool { return stampOf(s.path) != s }) {
			r.load()
		}
		r.checked = time.Now()
	}
	return r.policy, r.number, r.err
}

// load reads the policy. mu is held.
func (r *rules) load() {
	// The stamp is taken before the file is read: a change in between shows.
	begun := time.Now()
	var stamps []stamp
	seen := map[string]bool{}
	p, err := policy.LoadSeeing(r.dirs, func(path string) {
		if !seen[path] {
			seen[path] = true
			stamps = append(stamps, stampOf(path))
		}
	})
	r.settled = !slices.ContainsFunc(stamps, func(s stamp) bool {
		return s.errno == nil && begun.Sub(time.Unix(s.status.Unix())) < settleTime
	})
	r.number++
	r.policy, r.err, r.stamps = p, err, stamps
	switch {
	case err == nil:
		r.told = ""
	case err.Error() != r.told:
		r.told = err.Error()
		r.broken(err)
	}
}

// firstFault is what people are told of a broken policy: where it is broken
// first, and why.
func firstFault(err error) (where, why string) {
	if all, ok := errors.AsType[policy.Errors](err); ok && len(all) > 0 {
		return all[0].File, all[0].Error()
	}
	return "", err.Error()
}
