package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/engine/boundary"
	"cubicle/daemon/paths"
	"cubicle/daemon/vchan"
)

var network = map[string]func(*boundary.Target) error{
	"network devices": func(*boundary.Target) error {
		list, err := net.Interfaces()
		if err != nil {
			return err
		}
		for _, i := range list {
			if i.Name != "lo" {
				return nil
			}
		}
		return errors.New("only lo")
	},
	"dom0's loopback": func(t *boundary.Target) error {
		conn, err := net.DialTimeout("tcp", t.TCP, 2*time.Second)
		if err != nil {
			return err
		}
		return conn.Close()
	},
	"raw packets": func(*boundary.Target) error {
		return tryEach([][3]int{{unix.AF_PACKET, unix.SOCK_RAW, 0x0300}, {unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_TCP}, {unix.AF_INET6, unix.SOCK_RAW, unix.IPPROTO_ICMPV6}}, openSocket)
	},
	"vsock": func(*boundary.Target) error { return openSocket([3]int{unix.AF_VSOCK, unix.SOCK_STREAM, 0}) },
	"rare network protocols": func(*boundary.Target) error {
		return tryEach([][3]int{
			{unix.AF_INET, unix.SOCK_SEQPACKET, 132}, {unix.AF_INET, unix.SOCK_DCCP, 33}, {unix.AF_TIPC, unix.SOCK_SEQPACKET, 0}, {unix.AF_ALG, unix.SOCK_SEQPACKET, 0},
			{unix.AF_KCM, unix.SOCK_DGRAM, 0}, {unix.AF_RDS, unix.SOCK_SEQPACKET, 0}, {unix.AF_CAN, unix.SOCK_RAW, 1}, {unix.AF_BLUETOOTH, unix.SOCK_RAW, 1},
			{unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_XFRM}, {unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_NETFILTER}, {unix.AF_XDP, unix.SOCK_RAW, 0},
		}, openSocket)
	},
	"make a network device": makeDevice,
}

func openSocket(s [3]int) error {
	fd, err := unix.Socket(s[0], s[1], s[2])
	if err != nil {
		return fmt.Errorf("socket %v: %w", s, err)
	}
	return unix.Close(fd)
}

// makeDevice asks for a device of the kind dummy (rtnetlink(7)).
func makeDevice(*boundary.Target) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW, unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	attr := func(kind uint16, data []byte) []byte {
		b := binary.LittleEndian.AppendUint16(nil, uint16(4+len(data)))
		b = append(binary.LittleEndian.AppendUint16(b, kind), data...)
		for len(b)%4 != 0 {
			b = append(b, 0)
		}
		return b
	}
	body := append(make([]byte, unix.SizeofIfInfomsg), attr(unix.IFLA_IFNAME, []byte("attacker\x00"))...)
	body = append(body, attr(unix.IFLA_LINKINFO, attr(unix.IFLA_INFO_KIND, []byte("dummy")))...)
	b := binary.LittleEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.LittleEndian.AppendUint16(b, unix.RTM_NEWLINK)
	b = binary.LittleEndian.AppendUint16(b, unix.NLM_F_REQUEST|unix.NLM_F_ACK|unix.NLM_F_CREATE|unix.NLM_F_EXCL)
	b = append(append(b, make([]byte, 8)...), body...)
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, 0)
	if err != nil {
		return err
	}
	if n < unix.SizeofNlMsghdr+4 {
		return errors.New("no answer")
	}
	return fail(unix.Errno(-int32(binary.LittleEndian.Uint32(answer[unix.SizeofNlMsghdr:]))))
}

var sockets = map[string]func(*boundary.Target) error{
	"dom0's abstract socket": func(t *boundary.Target) error { return connect("@" + t.Abstract) },
	"an X server outside":    outsideX,
	"dom0's sockets in the file system": func(t *boundary.Target) error {
		return tryEach(t.Sockets, connect)
	},
	"channel to another qube": func(t *boundary.Target) error {
		return askLink(func(id uint32) []vchan.LinkFrame {
			other := vchan.Domain(t.OtherDomain)
			return []vchan.LinkFrame{
				{Op: vchan.LinkDial, Request: id, Domain: other, Port: 512}, {Op: vchan.LinkListen, Request: id + 1, Domain: other, Port: 512},
				{Op: vchan.LinkDial, Request: id + 2, Domain: other, Port: 6000}, {Op: vchan.LinkListen, Request: id + 3, Domain: other, Port: 513},
			}
		})
	},
	"channels of dom0's side": func(*boundary.Target) error {
		return askLink(func(id uint32) []vchan.LinkFrame {
			return []vchan.LinkFrame{
				{Op: vchan.LinkDial, Request: id, Domain: 0, Port: 512}, {Op: vchan.LinkDial, Request: id + 1, Domain: 0, Port: 6000},
				{Op: vchan.LinkListen, Request: id + 2, Domain: 0, Port: 513}, {Op: vchan.LinkListen, Request: id + 3, Domain: 0x7fffffff, Port: 1},
			}
		})
	},
}

func connect(address string) error {
	conn, err := net.DialTimeout("unix", address, 2*time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}

// outsideX looks for an X server that is no process of ours.
func outsideX(t *boundary.Target) error {
	var names []string
	for i := range 32 {
		path := fmt.Sprintf("/tmp/.X11-unix/X%d", i)
		names = append(names, "@"+path, path)
	}
	return tryEach(names, func(name string) error {
		conn, err := net.DialTimeout("unix", name, 2*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		raw, err := conn.(*net.UnixConn).SyscallConn()
		if err != nil {
			return err
		}
		var peer *unix.Ucred
		var perr error
		if err := raw.Control(func(fd uintptr) { peer, perr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) }); err != nil {
			return err
		}
		if perr != nil {
			return perr
		}
		if !t.Control && peer.Pid > 0 {
			if _, err := os.Stat(fmt.Sprintf("/proc/%d", peer.Pid)); err == nil {
				return fmt.Errorf("%s is our own", name)
			}
		}
		return nil
	})
}

// askLink takes the qube's link over from the agent, which dials it again,
// and asks for channels. It returns nil when qrexecd gives one.
func askLink(asks func(first uint32) []vchan.LinkFrame) error {
	var err error
	for range 10 { // the agent takes it back
		if err = askOnce(asks(100)); !errors.Is(err, errLost) {
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	return err
}

var errLost = errors.New("the agent took the link back")

func askOnce(asks []vchan.LinkFrame) error {
	conn, err := net.Dial("unix", filepath.Join(engine.AgentLinkDir, paths.LinkSocket))
	if err != nil {
		return err
	}
	defer conn.Close()
	link := conn.(*net.UnixConn)
	if err := vchan.WriteLinkFrame(link, vchan.LinkFrame{Op: vchan.LinkHello, Request: vchan.LinkVersion}); err != nil {
		return errLost
	}
	if _, _, err := vchan.ReadLinkFrame(link, true); err != nil {
		return errLost
	}
	for _, ask := range asks {
		if err := vchan.WriteLinkFrame(link, ask); err != nil {
			return errLost
		}
	}
	refusals := 0
	for refusals < len(asks) {
		if err := link.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
			return err
		}
		f, given, err := vchan.ReadLinkFrame(link, true)
		if len(given) > 0 || err == nil && f.Op == vchan.LinkChannel {
			return nil
		}
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return fmt.Errorf("%d of %d refused, no answer to the rest", refusals, len(asks))
		}
		if err != nil {
			return errLost
		}
		refusals++
	}
	return fmt.Errorf("%d of %d refused", refusals, len(asks))
}
