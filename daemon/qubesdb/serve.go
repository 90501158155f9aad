package qubesdb

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"
)

// maxClients bounds the local programs of one socket.
const maxClients = 128

// Serve serves local programs (upstream's socket protocol,
// spec/platform.md §3.1) until ctx ends. The caller closes and removes the
// socket. admit refuses a connection by an error; nil admits all.
func (d *DB) Serve(ctx context.Context, l *net.UnixListener, readOnly bool, admit func(*net.UnixConn) error, log *slog.Logger) {
	who := client
	if readOnly {
		who = reader
	}
	var work sync.WaitGroup
	defer work.Wait()
	stop := context.AfterFunc(ctx, func() { l.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	slots := make(chan struct{}, maxClients)
	for {
		stream, err := l.AcceptUnix()
		if ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
			if err == nil {
				stream.Close()
			}
			return
		}
		if err != nil {
			log.Warn("accept a reader of the database", "err", err)
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
			}
			continue
		}
		if admit != nil {
			if err := admit(stream); err != nil {
				log.Warn("refused to use the database", "err", err)
				stream.Close()
				continue
			}
		}
		select {
		case slots <- struct{}{}:
		default:
			log.Warn("too many programs use the database", "most", maxClients)
			stream.Close()
			continue
		}
		work.Go(func() {
			defer func() { <-slots }()
			stop := context.AfterFunc(ctx, func() { stream.Close() })
			defer stop()
			if err := newConn(d, who, stream).serve(); err != nil {
				log.Warn("a program that used the database", "err", err)
			}
		})
	}
}

// ServeQube is dom0's end of a channel to the qube, until that ends (nil), ctx
// does, or the qube breaks the rules.
func (d *DB) ServeQube(ctx context.Context, stream net.Conn) error {
	return d.servePeer(ctx, qube, stream)
}

// FollowDom0 is the qube's end of a channel to dom0, until that ends (nil),
// ctx does, or dom0 says what we do not understand. InStep tells when the
// database is what dom0's is.
func (d *DB) FollowDom0(ctx context.Context, stream net.Conn) error {
	return d.servePeer(ctx, dom0, stream)
}

func (d *DB) servePeer(ctx context.Context, who role, stream net.Conn) error {
	stop := context.AfterFunc(ctx, func() { stream.Close() })
	defer stop()
	c := newConn(d, who, stream)
	if who == dom0 {
		c.seen = map[string]bool{}
		if err := c.reply(Message{Type: MultiRead}); err != nil {
			return err
		}
	}
	return c.serve()
}
