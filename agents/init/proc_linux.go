package pid1

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// process is a line of /proc/PID/stat.
type process struct{ pid, session int }

// processes lists the processes of our PID namespace for which want is true,
// without ourselves and zombies.
func processes(want func(process) bool) ([]int, error) {
	all, err := readProcesses()
	if err != nil {
		return nil, err
	}
	var pids []int
	for _, p := range all {
		if p.pid != os.Getpid() && want(p) {
			pids = append(pids, p.pid)
		}
	}
	return pids, nil
}

func readProcesses() ([]process, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	entries, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list /proc: %w", err)
	}
	var all []process
	for _, name := range entries {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil {
			continue // it has ended
		}
		if session, alive := parseStat(stat); alive {
			all = append(all, process{pid, session})
		}
	}
	return all, nil
}

// parseStat reads the session from a line of /proc/PID/stat: "pid (name) state
// ppid pgrp session …". The name may hold anything, also parentheses. alive is
// false for what has ended.
func parseStat(stat []byte) (session int, alive bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, false
	}
	fields := bytes.Fields(stat[i+1:])
	if len(fields) < 4 {
		return 0, false
	}
	switch string(fields[0]) {
	case "Z", "X", "x":
		return 0, false
	}
	session, err := strconv.Atoi(string(fields[3]))
	if err != nil {
		return 0, false
	}
	return session, true
}

// names tells what processes are called, for people.
func names(pids []int) []string {
	var out []string
	for _, pid := range pids {
		name := "?"
		if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid)); err == nil {
			name = strconv.QuoteToGraphic(string(bytes.TrimSpace(b)))
		}
		out = append(out, fmt.Sprintf("%d %s", pid, name))
	}
	return out
}
