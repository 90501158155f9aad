package pid1

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/paths"
	"cubicle/daemon/vchan"
	"cubicle/guid/wire"
)

const patience = 20 * time.Second

// dom0 plays qrexecd and the GUI daemon for one qube.
type dom0 struct {
	t      *testing.T
	qrexec chan *os.File // our ends of the qube's control channels
	gui    chan guiEnd
}

type guiEnd struct {
	conn   net.Conn
	region []byte
}

// serveDom0 listens at the link socket in dir.
func serveDom0(t *testing.T, dir string) *dom0 {
	t.Helper()
	l, err := vchan.ListenPath(filepath.Join(dir, paths.LinkSocket))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(dir, paths.LinkSocket), 0o666); err != nil {
		t.Fatal(err)
	}
	d := &dom0{t: t, qrexec: make(chan *os.File, 16), gui: make(chan guiEnd, 16)}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				if err := d.link(conn); err != nil && !errors.Is(err, io.EOF) {
					t.Logf("link: %v", err)
				}
			}()
		}
	}()
	return d
}

func (d *dom0) link(conn *net.UnixConn) error {
	for {
		f, _, err := vchan.ReadLinkFrame(conn, false)
		if err != nil {
			return err
		}
		switch {
		case f.Op == vchan.LinkHello:
			err = vchan.WriteLinkFrame(conn, vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion, Domain: vchan.FirstDomain})
		case f.Op == vchan.LinkListen && f.Domain == 0:
			err = d.offer(conn, f)
		}
		if err != nil {
			return err
		}
	}
}

// offer answers a Listen with one end of a pair, and for the GUI a region.
func (d *dom0) offer(conn *net.UnixConn, f vchan.LinkFrame) error {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "dom0"), os.NewFile(uintptr(fds[1]), "qube")
	defer theirs.Close()
	files := []*os.File{theirs}
	if f.Port == vchan.PortGUI {
		fd, err := unix.MemfdCreate("region", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
		if err != nil {
			return err
		}
		region := os.NewFile(uintptr(fd), "region")
		defer region.Close()
		if err := region.Truncate(vchan.RegionSize); err != nil {
			return err
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, unix.F_SEAL_GROW|unix.F_SEAL_SHRINK|unix.F_SEAL_SEAL); err != nil {
			return err
		}
		mem, err := unix.Mmap(fd, 0, vchan.RegionSize, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			return err
		}
		files = append(files, region)
		end, err := net.FileConn(ours)
		ours.Close()
		if err != nil {
			return err
		}
		d.gui <- guiEnd{end, mem}
	} else {
		d.qrexec <- ours
	}
	f.Op = vchan.LinkChannel
	return vchan.WriteLinkFrame(conn, f, files...)
}

// awaitWindow plays the GUI daemon until a window of that title is painted,
// and returns how many colours it has. Channels of agents that have died are
// passed over.
func (d *dom0) awaitWindow(title string) int {
	d.t.Helper()
	timeout := time.After(patience)
	for {
		select {
		case end := <-d.gui:
			n, err := end.show(title)
			if err == nil {
				return n
			}
			d.t.Logf("a GUI channel ended: %v", err)
		case <-timeout:
			d.t.Fatalf("no window %q", title)
		}
	}
}

// show is one session of a GUI daemon.
func (end guiEnd) show(title string) (int, error) {
	defer unix.Munmap(end.region)
	defer end.conn.Close()
	end.conn.SetDeadline(time.Now().Add(patience))
	version, err := wire.DaemonHandshake(end.conn, wire.NewXConf(2560, 1440, 24))
	if err != nil {
		return 0, err
	}
	r := wire.NewReader(end.conn, wire.ToDaemon, version)
	titles, dumps := map[wire.WindowID]string{}, map[wire.WindowID]wire.WindowDump{}
	for {
		id, m, err := r.Next()
		if err != nil {
			return 0, err
		}
		switch m := m.(type) {
		case wire.WMName:
			titles[id], _, _ = strings.Cut(string(m.Text[:]), "\x00")
		case wire.WindowDump:
			dumps[id] = m
			if _, err := end.conn.Write(wire.Append(nil, id, wire.WindowDumpAck{})); err != nil {
				return 0, err
			}
		case wire.ShmImage:
			if n := colours(end.region, dumps[id]); titles[id] == title && n > 1 {
				return n, nil
			}
		}
	}
}

func colours(region []byte, dump wire.WindowDump) int {
	seen := make(map[[3]byte]bool)
	for y := range uint64(dump.Height) {
		row := region[dump.Offset+y*uint64(dump.Stride):][:4*dump.Width]
		for i := 0; i < len(row); i += 4 {
			seen[[3]byte(row[i:])] = true
		}
	}
	return len(seen)
}
