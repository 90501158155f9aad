package main

import (
	"context"
	"errors"
	"io"
	"os"
	"sync"

	"cubicle/agents/link"
	"cubicle/agents/qrexec"
	"cubicle/agents/qrexec/vmclient"
	"cubicle/daemon/admin/client"
	"cubicle/daemon/paths"
	"cubicle/daemon/vchan"
)

// remote is how calls leave a qube; nil in dom0. A qube has the socket of its
// qrexec agent, and no system of its own that somebody names.
func remote() (client.Remote, error) {
	if os.Getenv(paths.Env) != "" {
		return nil, nil
	}
	if _, err := os.Stat(qrexec.TriggerSocket); err != nil {
		return nil, nil // dom0, running or not
	}
	var transport vchan.Transport = &link.Transport{Path: link.Local}
	if u, ok, err := vchan.FromEnv(); err != nil {
		return nil, err
	} else if ok {
		transport = u
	}
	return func(ctx context.Context, target, service string, in io.Reader, out, errOut io.Writer) (int, error) {
		return call(ctx, transport, target, service, in, out, errOut)
	}, nil
}

// call calls a service of another qube.
func call(ctx context.Context, t vchan.Transport, target, service string, in io.Reader, out, errOut io.Writer) (int, error) {
	errRead, errWrite, err := os.Pipe()
	if err != nil {
		return 1, err
	}
	var reading sync.WaitGroup
	reading.Go(func() {
		// What the writer does not take is dropped: nothing must wait for it.
		if _, err := io.Copy(errOut, errRead); err != nil {
			_, _ = io.Copy(io.Discard, errRead)
		}
		errRead.Close()
	})
	var failure error // of what we make of the reply
	status, err := vmclient.Run(ctx, vmclient.Call{
		Trigger: qrexec.TriggerSocket, Transport: t, Target: target, Service: service, Stderr: errWrite,
		Local: func(_ context.Context, to io.WriteCloser, from io.Reader) int {
			go func() {
				// A service may end before it has read all: its reply tells.
				_, _ = io.Copy(to, in)
				_ = to.Close()
			}()
			_, failure = io.Copy(out, from)
			return 0
		},
	})
	errWrite.Close()
	reading.Wait()
	return status, errors.Join(err, failure)
}
