package pid1

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// processes lists the processes of our PID namespace for which want is true,
// without ourselves, kernel threads and zombies.
func processes(want func(pid int) bool) ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list /proc: %w", err)
	}
	var pids []int
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil || pid == os.Getpid() || !want(pid) {
			continue
		}
		stat, err := os.ReadFile("/proc/" + name + "/stat")
		if err != nil || isDead(stat) {
			continue
		}
		pids = append(pids, pid)
	}
	return pids, nil
}

// isDead reads a line of /proc/PID/stat: "pid (name) state ppid pgrp …". The
// name may hold anything, also parentheses.
func isDead(stat []byte) bool {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 || i+2 >= len(stat) {
		return true
	}
	switch stat[i+2] {
	case 'Z', 'X', 'x':
		return true
	}
	return false
}
