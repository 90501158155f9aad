package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sys/unix"
)

// blockSize is what is read and written at once, in bytes.
const blockSize = 64 << 10

type echoCmd struct{}

func (echoCmd) Run() error { return pass(os.Stdout, os.Stdin, messageSize) }

type relayCmd struct{}

func (relayCmd) Run() error { return pass(os.Stdout, os.Stdin, blockSize) }

type sinkCmd struct{}

func (sinkCmd) Run() error { return pass(io.Discard, os.Stdin, blockSize) }

// pass copies by reading and writing alone, as what has to look at the bytes
// does.
func pass(w io.Writer, r io.Reader, block int) error {
	_, err := io.CopyBuffer(struct{ io.Writer }{w}, struct{ io.Reader }{r}, make([]byte, block))
	return err
}

type genCmd struct {
	Bytes int64
}

func (c genCmd) Run() error {
	b := make([]byte, blockSize)
	for left := c.Bytes; left > 0; left -= int64(len(b)) {
		if _, err := os.Stdout.Write(b[:min(left, int64(len(b)))]); err != nil {
			return err
		}
	}
	return nil
}

// chain are programs, each with a socket from the one before and a socket to
// the next.
type chain struct {
	in, out  *net.UnixConn // of the first and from the last
	programs []*exec.Cmd
}

// startChain starts programs, our own commands among them. The first one's
// input and the last one's output are the chain's.
func startChain(lines ...string) (c *chain, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c = &chain{}
	var next *os.File // the input of the next program
	defer func() {
		if next != nil {
			next.Close()
		}
	}()
	var first *os.File
	if first, next, err = socketPair(); err != nil {
		return nil, err
	}
	if c.in, err = connOf(first); err != nil {
		return nil, err
	}
	for _, line := range lines {
		words := strings.Fields(line)
		if !strings.HasPrefix(words[0], "/") {
			words = append([]string{self}, words...)
		}
		mine, theirs, err := socketPair()
		if err != nil {
			return nil, err
		}
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Stdin, cmd.Stdout, cmd.Stderr = next, theirs, os.Stderr
		err = cmd.Start()
		next.Close()
		theirs.Close()
		next = mine
		if err != nil {
			c.in.Close() // which ends those that run
			return nil, errors.Join(err, c.wait())
		}
		c.programs = append(c.programs, cmd)
	}
	c.out, err = connOf(next)
	next = nil
	return c, err
}

// wait waits for all of them.
func (c *chain) wait() error {
	var err error
	for _, cmd := range c.programs {
		if e := cmd.Wait(); e != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", strings.Join(cmd.Args, " "), e))
		}
	}
	return err
}

func socketPair() (a, b *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	return os.NewFile(uintptr(fds[0]), "socket"), os.NewFile(uintptr(fds[1]), "socket"), nil
}

func connOf(f *os.File) (*net.UnixConn, error) {
	defer f.Close()
	conn, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	return conn.(*net.UnixConn), nil
}
