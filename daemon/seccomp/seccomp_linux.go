// Package seccomp turns a table of allowed system calls into a filter and
// loads it. A call that is not in the table fails with EPERM; one whose
// arguments do not fit its row too.
//
// The table is Go data with a reason in each row, so that a reviewer reads
// what a jailed process may do and why. The filter is assembled here because
// each row must decide by itself: an assembler that falls through from the
// check of an argument to the next row compares the argument with that row's
// call number, and lets calls through that nobody has allowed.
package seccomp

import (
	"errors"
	"fmt"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/sys/unix"
)

// Rule is a row of the table.
type Rule struct {
	Why   string   // what the process needs the calls for
	Calls []string // names as in the kernel's table
	When  []Cond   // all must hold; none means always
}

// Op is a comparison of an argument.
type Op int

// The comparisons. They look at the low 32 bits of an argument, which is all
// that the kernel takes of an int or of flags.
const (
	Equals Op = iota // the argument is Value
	Lacks            // the argument has no bit of Value
	Has              // the argument has all bits of Value
)

// Cond is a condition on one argument.
type Cond struct {
	Arg   int // 0 to 5
	Op    Op
	Value uint32
}

// Filter is a table.
type Filter []Rule

// What the kernel gives a filter, in bytes from its start.
const (
	offNumber = 0
	offArch   = 4
	offArgs   = 16 // 8 bytes each, the low half first
)

const (
	allow  = unix.SECCOMP_RET_ALLOW
	deny   = unix.SECCOMP_RET_ERRNO | uint32(unix.EPERM)
	noCall = unix.SECCOMP_RET_ERRNO | uint32(unix.ENOSYS)
	kill   = unix.SECCOMP_RET_KILL_PROCESS
)

// Load locks all threads of the process in, for good, and sets no_new_privs.
func (f Filter) Load() error {
	prog, err := f.Program()
	if err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("seccomp: no new privileges: %w", err)
	}
	if err := load(prog); err != nil {
		return fmt.Errorf("seccomp: load the filter: %w", err)
	}
	return nil
}

// Program is the filter for this machine. A name that the machine does not
// have is left out, for the table names calls of several machines; a call
// that stands in two rows is an error.
func (f Filter) Program() ([]unix.SockFilter, error) {
	info, err := arch.GetInfo("")
	if err != nil {
		return nil, err
	}
	var p []unix.SockFilter
	p = append(p,
		ldw(offArch),
		jump(unix.BPF_JEQ, uint32(info.ID), 1, 0),
		ret(kill), // a call by another machine's numbers
		ldw(offNumber),
	)
	if info.ID == arch.X86_64.ID {
		p = append(p, jump(unix.BPF_JGE, x32Bit, 0, 1), ret(noCall))
	}
	// clone3 hides its flags behind a pointer: it does not exist, and its
	// callers fall back to clone.
	if n, ok := info.SyscallNames["clone3"]; ok {
		p = append(p, jump(unix.BPF_JEQ, uint32(n), 0, 1), ret(noCall))
	}
	seen := map[string]bool{"clone3": true}
	known := false
	for _, rule := range f {
		block, err := rule.block()
		if err != nil {
			return nil, err
		}
		for _, name := range rule.Calls {
			if seen[name] {
				return nil, fmt.Errorf("%s stands in two rows", name)
			}
			seen[name] = true
			n, ok := info.SyscallNames[name]
			if !ok {
				continue
			}
			known = true
			p = append(p, jump(unix.BPF_JEQ, uint32(n), 0, uint8(len(block))))
			p = append(p, block...)
		}
	}
	if !known {
		return nil, errors.New("the table allows nothing")
	}
	return append(p, ret(deny)), nil
}

const x32Bit = 0x40000000 // in the number of a call of the x32 machine

// block decides about a call that is known to be one of the rule's: it never
// falls through.
func (r Rule) block() ([]unix.SockFilter, error) {
	var b []unix.SockFilter
	for _, c := range r.When {
		if c.Arg < 0 || c.Arg > 5 {
			return nil, fmt.Errorf("%v: there is no argument %d", r.Calls, c.Arg)
		}
		b = append(b, ldw(uint32(offArgs+8*c.Arg)))
		switch c.Op {
		case Equals:
			b = append(b, jump(unix.BPF_JEQ, c.Value, 1, 0))
		case Lacks:
			b = append(b, jump(unix.BPF_JSET, c.Value, 0, 1))
		case Has:
			b = append(b, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: c.Value},
				jump(unix.BPF_JEQ, c.Value, 1, 0))
		default:
			return nil, fmt.Errorf("%v: unknown comparison %d", r.Calls, c.Op)
		}
		b = append(b, ret(deny))
	}
	return append(b, ret(allow)), nil
}

func ldw(off uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: off}
}

func jump(op uint16, k uint32, jt, jf uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | op | unix.BPF_K, Jt: jt, Jf: jf, K: k}
}

func ret(k uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: k}
}
