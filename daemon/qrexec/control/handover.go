package control

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Handover is what qrexecd says when it gives a qube's call to the process
// that runs dom0's own services: one line of JSON with the call's data channel
// as a descriptor, on a connection of its own. The process keeps the
// connection for as long as the service runs.
type Handover struct {
	Command string `json:"command"` // QUBESRPC … (spec/qrexec.md §6)
	Source  string `json:"source"`  // the calling qube's name
}

// MaxHandover is the longest line, in bytes: a service name may be 65000 long.
const MaxHandover = 128 << 10

// SendHandover gives data, which stays open here, to the process at the other
// end of conn.
func SendHandover(conn *net.UnixConn, h Handover, data syscall.Conn) error {
	line, err := json.Marshal(h)
	if err != nil {
		return err
	}
	line = append(line, '\n')
	raw, err := data.SyscallConn()
	if err != nil {
		return err
	}
	var n int
	cerr := raw.Control(func(fd uintptr) {
		n, _, err = conn.WriteMsgUnix(line, unix.UnixRights(int(fd)), nil)
	})
	if cerr != nil {
		return cerr
	}
	if err == nil && n < len(line) {
		_, err = conn.Write(line[n:]) // the descriptor went with the first byte
	}
	return err
}

// ReceiveHandover takes what SendHandover gave. The file is the caller's.
func ReceiveHandover(conn *net.UnixConn) (h Handover, data *os.File, err error) {
	defer func() {
		if err != nil {
			if data != nil {
				data.Close()
				data = nil
			}
			err = fmt.Errorf("take over a call: %w", err)
		}
	}()
	buf := make([]byte, 4096)
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := conn.ReadMsgUnix(buf, oob)
	if err == nil && n == 0 {
		err = io.EOF
	}
	if data, perr := descriptor(oob[:oobn]); perr != nil || err != nil {
		return h, data, errors.Join(err, perr)
	} else if data == nil {
		return h, nil, errors.New("no descriptor came with it")
	} else {
		h, err = readHandover(conn, buf[:n])
		return h, data, err
	}
}

// descriptor is the file in a control message, or nil.
func descriptor(oob []byte) (*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	for _, m := range msgs {
		fds, err := unix.ParseUnixRights(&m)
		if err != nil || len(fds) == 0 {
			continue
		}
		unix.CloseOnExec(fds[0])
		return os.NewFile(uintptr(fds[0]), "call"), nil // there was room for one
	}
	return nil, nil
}

// readHandover reads the line that begins with what was read already.
func readHandover(conn io.Reader, line []byte) (Handover, error) {
	var h Handover
	buf := make([]byte, 4096)
	for line[len(line)-1] != '\n' {
		n, err := conn.Read(buf)
		if err != nil {
			return h, err
		}
		if line = append(line, buf[:n]...); len(line) > MaxHandover {
			return h, fmt.Errorf("a line of more than %d bytes", MaxHandover)
		}
	}
	return h, json.Unmarshal(line, &h)
}
