package supervise

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"cubicle/daemon/vchan"
)

// Descriptors of a qube's process, handed over by number.
const (
	ChannelFD = 3 // the GUI channel, a stream socket
	LeashFD   = 4 // a pipe that ends when the supervisor does
	RegionFD  = 5 // the pixel region; only with --region
)

// ErrDisplayLost is the end of a process whose X server is gone.
var ErrDisplayLost = errors.New("dom0's X server is gone")

// patience is how long a process may take to end when it is asked to.
const patience = 2 * time.Second

// Executable returns a runner that starts program for each channel, with
// flags that say whose it is and with args.
func Executable(program string, args ...string) Runner {
	return func(ctx context.Context, q Qube, ch *vchan.Channel) error {
		defer ch.Close()
		err := execute(ctx, program, args, q, ch)
		if exit, ok := errors.AsType[*exec.ExitError](err); ok {
			return endOf(q, exit.ExitCode(), err)
		}
		if err != nil {
			return fmt.Errorf("GUI process of %s: %w", q.Name, err)
		}
		return nil
	}
}

func execute(ctx context.Context, program string, args []string, q Qube, ch *vchan.Channel) error {
	conn, ok := ch.Conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a channel of type %T has no descriptor", ch.Conn)
	}
	channel, err := conn.File()
	if err != nil {
		return err
	}
	defer channel.Close()
	leash, hold, err := os.Pipe()
	if err != nil {
		return err
	}
	defer leash.Close()
	defer hold.Close()

	cmd := exec.CommandContext(ctx, program, append([]string{
		"--qube-process",
		"--name", q.Name,
		"--domid", strconv.FormatUint(uint64(q.Domain), 10),
		"--label-index", strconv.Itoa(int(q.LabelIndex)),
		"--label-color", fmt.Sprintf("0x%06x", q.LabelColor),
	}, args...)...)
	// It passes things on and computes nothing: with one thread at work, a key
	// is handed from goroutine to goroutine without waking another processor.
	cmd.Env = append(os.Environ(), "GOMAXPROCS=1")
	cmd.ExtraFiles = []*os.File{channel, leash}
	if ch.Region != nil {
		cmd.Args = append(cmd.Args, "--region")
		cmd.ExtraFiles = append(cmd.ExtraFiles, ch.Region)
	}
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = patience
	if err := cmd.Start(); err != nil {
		return err
	}
	// The process has its own descriptors: ours would keep the agent from
	// seeing its end.
	channel.Close()
	ch.Close()
	return cmd.Wait()
}
