package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// process is a running process.
type process struct {
	pid, parent int
	args        []string
	group       string // its control groups
}

// processes lists all that run.
func processes() ([]process, error) {
	folders, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, dir := range folders {
		line, err1 := os.ReadFile(filepath.Join(dir, "cmdline"))
		stat, err2 := os.ReadFile(filepath.Join(dir, "stat"))
		group, err3 := os.ReadFile(filepath.Join(dir, "cgroup"))
		if errors.Join(err1, err2, err3) != nil {
			continue // it ended meanwhile
		}
		p := process{args: strings.Split(strings.TrimRight(string(line), "\x00"), "\x00"), group: string(group)}
		p.pid, err = strconv.Atoi(filepath.Base(dir))
		if err != nil {
			return nil, err
		}
		// The second field may hold spaces; the fields after its ')' do not.
		if i := bytes.LastIndexByte(stat, ')'); i >= 0 {
			if fields := strings.Fields(string(stat[i+1:])); len(fields) > 1 {
				p.parent, _ = strconv.Atoi(fields[1]) // the kernel wrote it
			}
		}
		all = append(all, p)
	}
	return all, nil
}

// below returns the processes that descend from pid.
func below(all []process, pid int) []process {
	var found []process
	for _, p := range all {
		if p.parent == pid {
			found = append(append(found, p), below(all, p.pid)...)
		}
	}
	return found
}

// dom0Of lists the desktop's own processes of one program.
func (s *system) dom0Of(program string) ([]process, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var found []process
	for _, p := range below(all, s.up.Process.Pid) {
		if filepath.Base(p.args[0]) == program {
			found = append(found, p)
		}
	}
	return found, nil
}

// guidOf lists the GUI processes of a qube, of every qube when name is "".
func (s *system) guidOf(name string) ([]process, error) {
	all, err := s.dom0Of("qubes-guid")
	var found []process
	for _, p := range all {
		line := strings.Join(p.args, "\x00") + "\x00"
		if strings.Contains(line, "\x00--qube-process\x00") && (name == "" || strings.Contains(line, "\x00--name\x00"+name+"\x00")) {
			found = append(found, p)
		}
	}
	return found, err
}

// inQube lists a machine's processes, as far as they are dom0's kernel's.
func inQube(uuid string) ([]process, error) {
	all, err := processes()
	var found []process
	for _, p := range all {
		if strings.Contains(p.group, uuid) {
			found = append(found, p)
		}
	}
	return found, err
}

// cpu is the time that processes have had on a processor. It is exact where
// the tick of /proc/PID/stat is not.
func cpu(list []process) (time.Duration, error) {
	var sum time.Duration
	for _, p := range list {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", p.pid))
		if err != nil {
			return 0, err
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				continue // the thread ended
			}
			ran, _, _ := strings.Cut(string(text), " ")
			n, err := strconv.ParseInt(ran, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", file, err)
			}
			sum += time.Duration(n)
		}
	}
	return sum, nil
}

// machineCPU is the time that a whole qube has had on a processor.
func machineCPU(uuid string) (time.Duration, error) {
	for _, pattern := range []string{"/sys/fs/cgroup/*/cubicle/" + uuid + "/cpuacct.usage", "/sys/fs/cgroup/cubicle/" + uuid + "/cpu.stat"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			return 0, err
		}
		if len(files) == 0 {
			continue
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			return 0, err
		}
		unit, fields := time.Nanosecond, strings.Fields(string(text))
		if len(fields) > 1 { // version 2: "usage_usec N"
			unit, fields = time.Microsecond, fields[1:]
		}
		n, err := strconv.ParseInt(fields[0], 10, 64)
		return time.Duration(n) * unit, err
	}
	return 0, fmt.Errorf("machine %s has no control group", uuid)
}

// memoryUse is the memory of processes in bytes, each shared page divided
// among those that share it (the kernel's PSS).
type memoryUse struct {
	own   int64 // heaps, stacks, and memory that processes share by name
	files int64 // mapped programs and libraries
}

func (m memoryUse) total() int64 { return m.own + m.files }

func memoryOf(list []process) (sum memoryUse) {
	for _, p := range list {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", p.pid))
		if err != nil {
			continue // it ended
		}
		sum.add(string(text))
	}
	return sum
}

// add adds what a smaps_rollup says (proc_pid_smaps(5)).
func (m *memoryUse) add(rollup string) {
	for line := range strings.Lines(rollup) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 0 {
			continue
		}
		kib, _ := strconv.ParseInt(fields[0], 10, 64) // the kernel wrote it
		switch name {
		case "Pss_Anon", "Pss_Shmem", "SwapPss":
			m.own += kib << 10
		case "Pss_File":
			m.files += kib << 10
		}
	}
}

// load is the machine's load average of the last minute.
func load() string {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	first, _, _ := strings.Cut(string(text), " ")
	return first
}

// memory is a field of /proc/meminfo in bytes.
func memory(field string) (int64, error) {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, field); ok {
			kib, err := strconv.ParseInt(strings.Fields(rest)[0], 10, 64)
			return kib << 10, err
		}
	}
	return 0, fmt.Errorf("/proc/meminfo has no %s", field)
}

// machine says in a line what the figures were measured on.
func machine() string {
	model := "unknown processor"
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(text)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	kernel := "unknown"
	var name syscall.Utsname
	if syscall.Uname(&name) == nil {
		var text []byte
		for _, c := range name.Release {
			if c == 0 {
				break
			}
			text = append(text, byte(c))
		}
		kernel = string(text)
	}
	total, _ := memory("MemTotal:") // 0 says enough
	return fmt.Sprintf("%d cores (%s), %.0f GiB of memory, Linux %s, no graphics hardware (X server in memory)",
		runtime.NumCPU(), model, float64(total)/(1<<30), kernel)
}
