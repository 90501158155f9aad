package seccomp

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/elastic/go-seccomp-bpf/arch"
	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// judge runs the filter as the kernel would.
func judge(t *testing.T, f Filter, machine uint32, number uint32, args ...uint64) uint32 {
	t.Helper()
	prog, err := f.Program()
	if err != nil {
		t.Fatal(err)
	}
	raw := make([]bpf.RawInstruction, len(prog))
	for i, p := range prog {
		raw[i] = bpf.RawInstruction{Op: p.Code, Jt: p.Jt, Jf: p.Jf, K: p.K}
	}
	insts, ok := bpf.Disassemble(raw)
	if !ok {
		t.Fatal("the filter cannot be disassembled")
	}
	vm, err := bpf.NewVM(insts)
	if err != nil {
		t.Fatal(err)
	}
	data := make([]byte, 64) // the machine under test reads words in network order
	binary.BigEndian.PutUint32(data[offNumber:], number)
	binary.BigEndian.PutUint32(data[offArch:], machine)
	for i, a := range args {
		binary.BigEndian.PutUint32(data[offArgs+8*i:], uint32(a))
		binary.BigEndian.PutUint32(data[offArgs+8*i+4:], uint32(a>>32))
	}
	out, err := vm.Run(data)
	if err != nil {
		t.Fatal(err)
	}
	return uint32(out)
}

func TestFilter(t *testing.T) {
	info, err := arch.GetInfo("")
	if err != nil {
		t.Fatal(err)
	}
	number := func(name string) uint32 {
		n, ok := info.SyscallNames[name]
		if !ok {
			t.Fatalf("no call %s", name)
		}
		return uint32(n)
	}
	f := Filter{
		{Why: "a", Calls: []string{"read", "no_such_call_anywhere"}},
		{Why: "b", Calls: []string{"socket", "socketpair"}, When: []Cond{{0, Equals, unix.AF_UNIX}}},
		{Why: "c", Calls: []string{"mmap"}, When: []Cond{{2, Lacks, unix.PROT_EXEC}, {3, Has, unix.MAP_PRIVATE | unix.MAP_ANON}}},
		{Why: "d", Calls: []string{"write"}},
	}
	machine := uint32(info.ID)
	for _, c := range []struct {
		name    string
		machine uint32
		number  uint32
		args    []uint64
		want    uint32
	}{
		{"allowed", machine, number("read"), nil, allow},
		{"after rows with conditions", machine, number("write"), nil, allow},
		{"not in the table", machine, number("execve"), nil, deny},
		{"fits", machine, number("socket"), []uint64{unix.AF_UNIX}, allow},
		{"does not exist", machine, number("clone3"), nil, noCall},
		{"another machine", machine ^ 1, number("read"), nil, kill},
		{"x32", uint32(arch.X86_64.ID), x32Bit | 1, nil, noCall},
		{"both conditions", machine, number("mmap"), []uint64{0, 0, 3, unix.MAP_PRIVATE | unix.MAP_ANON}, allow},
		{"first fails", machine, number("mmap"), []uint64{0, 0, 5, unix.MAP_PRIVATE | unix.MAP_ANON}, deny},
		{"second fails in one bit", machine, number("mmap"), []uint64{0, 0, 3, unix.MAP_PRIVATE}, deny},
	} {
		if c.name == "x32" && machine != c.machine {
			continue
		}
		if got := judge(t, f, c.machine, c.number, c.args...); got != c.want {
			t.Errorf("%s: %#x, want %#x", c.name, got, c.want)
		}
	}
	// No argument may be taken for the number of another row's call.
	for family := range uint64(400) {
		want := uint32(deny)
		if family == unix.AF_UNIX {
			want = allow
		}
		for _, call := range []string{"socket", "socketpair"} {
			if got := judge(t, f, machine, number(call), family); got != want {
				t.Errorf("%s of family %d: %#x", call, family, got)
			}
		}
	}
}

func TestBadTables(t *testing.T) {
	for name, f := range map[string]Filter{
		"empty":       {},
		"twice":       {{Calls: []string{"read"}}, {Calls: []string{"read"}}},
		"argument":    {{Calls: []string{"read"}, When: []Cond{{Arg: 6}}}},
		"comparison":  {{Calls: []string{"read"}, When: []Cond{{Op: 9}}}},
		"clone3":      {{Calls: []string{"clone3"}}},
		"unknown all": {{Calls: []string{"no_such_call_anywhere"}}},
	} {
		if p, err := f.Program(); err == nil {
			t.Errorf("%s: %s", name, fmt.Sprint(p))
		}
	}
}
