package session

import (
	"crypto/rand"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// The X server's configuration and log.
const (
	XConfigFile = Dir + "/xorg.conf"
	XLogFile    = Dir + "/xorg.log"
)

// The screen that the X server starts with, until dom0 tells its own, and
// the largest that it can grow to, in pixels.
const (
	StartWidth, StartHeight = 1920, 1080
	MaxWidth, MaxHeight     = 8192, 4096
)

// xConfig runs the X server without any device: pixels go to memory, input
// comes through XTEST. VideoRam (KiB) holds MaxWidth×MaxHeight pixels twice.
const xConfig = `Section "ServerFlags"
	Option "DontVTSwitch" "true"
	Option "AllowMouseOpenFail" "true"
	Option "AutoAddDevices" "false"
	Option "AutoEnableDevices" "false"
	Option "AutoAddGPU" "false"
	Option "BlankTime" "0"
	Option "StandbyTime" "0"
	Option "SuspendTime" "0"
	Option "OffTime" "0"
	Option "MaxClients" "512"
EndSection
Section "Device"
	Identifier "memory"
	Driver "dummy"
	VideoRam 256000
EndSection
Section "Monitor"
	Identifier "dom0"
	HorizSync 1-2000
	VertRefresh 1-400
	Modeline "%dx%d" %s
EndSection
Section "Screen"
	Identifier "screen"
	Device "memory"
	Monitor "dom0"
	DefaultDepth 24
	SubSection "Display"
		Depth 24
		Modes "%dx%d"
		Virtual %d %d
	EndSubSection
EndSection
`

// Modeline returns the timing part of a mode line for a screen that nobody
// scans out: any blanking passes, 60 Hz is told.
func Modeline(width, height int) string {
	htotal, vtotal := width+48, height+12
	return fmt.Sprintf("%.2f %d %d %d %d %d %d %d %d",
		float64(htotal)*float64(vtotal)*60/1e6,
		width, width+16, width+32, htotal, height, height+3, height+6, vtotal)
}

// XConfig returns the X server's configuration file.
func XConfig() string {
	return fmt.Sprintf(xConfig, StartWidth, StartHeight, Modeline(StartWidth, StartHeight),
		StartWidth, StartHeight, MaxWidth, MaxHeight)
}

// XServer returns the program of the X server. The wrapper in PATH asks for a
// console; the server proper does not.
func XServer() (string, error) {
	const proper = "/usr/lib/xorg/Xorg"
	if st, err := os.Stat(proper); err == nil && st.Mode()&0o111 != 0 {
		return proper, nil
	}
	return exec.LookPath("Xorg")
}

// XArgs are the arguments of the qube's X server. It writes its display number
// to descriptor readyFD when it accepts clients.
func XArgs(readyFD int) []string {
	return []string{
		Display, "-config", XConfigFile, "-auth", XAuthFile,
		"-logfile", XLogFile, "-verbose", "0", "-logverbose", "3",
		"-displayfd", fmt.Sprint(readyFD),
		"-novtswitch", "-sharevts", "-noreset", "-nolisten", "tcp",
	}
}

// WriteXFiles writes the X server's configuration and its cookie, which user
// uid and the server's own group may read.
func WriteXFiles(uid uint32) error {
	if err := replaceFile(XConfigFile, []byte(XConfig()), 0o644); err != nil {
		return err
	}
	return WriteXAuth(XAuthFile, Display, uid)
}

// WriteXAuth writes a file with a fresh cookie for display (":0"), which the
// server and its clients read. User uid owns it; root may lack the capability
// to read what it does not own, and reads it by its group.
func WriteXAuth(path, display string, uid uint32) error {
	cookie := make([]byte, 16)
	rand.Read(cookie)
	if err := replaceFile(path, appendXAuth(nil, strings.TrimPrefix(display, ":"), cookie), 0o640); err != nil {
		return err
	}
	return os.Chown(path, int(uid), 0)
}

// appendXAuth appends one entry in the format of libXau: big-endian family,
// then address, display number, name and data, each with a 16-bit length. The
// family "wild" matches whatever the qube is called.
func appendXAuth(b []byte, number string, cookie []byte) []byte {
	const familyWild = 0xffff
	b = binary.BigEndian.AppendUint16(b, familyWild)
	for _, field := range [][]byte{nil, []byte(number), []byte("MIT-MAGIC-COOKIE-1"), cookie} {
		b = binary.BigEndian.AppendUint16(b, uint16(len(field)))
		b = append(b, field...)
	}
	return b
}
