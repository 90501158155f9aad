package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"cubicle/daemon/qrexec/wire"
)

// Remote calls a service of another qube, or of dom0, from within a qube, with
// these streams. The status is the service's own, or one of wire.Status….
// dom0's policy says which calls it allows; a call on a qube that dom0 carries
// out goes to that qube's name.
type Remote func(ctx context.Context, target, service string, in io.Reader, out, errOut io.Writer) (status int, err error)

// isOwn tells whether a method is one of ours that upstream has not. In a qube
// none is called: no policy allows it, and dom0 would tell the person of each
// denial.
func isOwn(method string) bool { return strings.HasPrefix(method, "cubicle.") }

var errOwn = &Error{"QubesDaemonAccessError", "this is for dom0 alone"}

// refused is what a status means that is not the service's own.
func refused(target, service string, status int, err error) error {
	switch {
	case status == wire.StatusRefused:
		return &Error{"QubesDaemonAccessError", fmt.Sprintf("dom0's policy does not allow %s on %s", service, target)}
	case err != nil:
		return &Error{"QubesDaemonCommunicationError", fmt.Sprintf("call %s on %s: %v", service, target, err)}
	}
	return nil
}

func (c *Client) exchangeRemote(ctx context.Context, dest, method, service string, payload io.Reader) (string, error) {
	if isOwn(method) {
		return "", errOwn
	}
	var out, errOut limited
	out.left, errOut.left, errOut.drops = maxReply+1, 64<<10, true
	status, err := c.Remote(ctx, dest, service, payload, &out, &errOut)
	if ctx.Err() != nil {
		return "", ctx.Err()
	}
	if err := refused(dest, service, status, err); err != nil {
		return "", err
	}
	if !IsPolicyService(method) {
		return wholeReply(out.Bytes())
	}
	if status != 0 {
		text := strings.TrimSuffix(strings.ToValidUTF8(errOut.String(), "_"), "\n")
		if kind, message, ok := strings.Cut(text, ": "); ok && !strings.ContainsAny(kind, " \n") {
			return "", &Error{kind, message}
		}
		return "", &Error{"PolicyAdminException", fmt.Sprintf("%s ended with status %d: %s", service, status, text)}
	}
	return out.String(), nil
}

// streamRemote begins a stream that ends with its call.
func (c *Client) streamRemote(ctx context.Context, dest, method string) (*Stream, error) {
	ctx, cancel := context.WithCancel(ctx)
	r, w := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		status, err := c.Remote(ctx, dest, method, strings.NewReader(""), w, io.Discard)
		if err = refused(dest, method, status, err); err == nil {
			err = io.EOF
		}
		w.CloseWithError(err)
	}()
	return &Stream{r: bufio.NewReader(r), end: func() {
		cancel()
		r.CloseWithError(errors.New("the stream is closed"))
		<-done
	}}, nil
}

// limited keeps so many bytes; with more it fails, or drops them.
type limited struct {
	bytes.Buffer
	left  int
	drops bool
}

func (l *limited) Write(b []byte) (int, error) {
	n := len(b)
	if n > l.left {
		if !l.drops {
			return 0, errors.New("the reply is too long")
		}
		b = b[:l.left]
	}
	l.left -= len(b)
	l.Buffer.Write(b)
	return n, nil
}
