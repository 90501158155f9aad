// Command qubes-tray shows the running qubes in the desktop's tray, and
// brings a tray where the desktop has none.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"fyne.io/fyne/v2"
	"fyne.io/fyne/v2/app"
	"github.com/alecthomas/kong"
	"github.com/godbus/dbus/v5"

	"cubicle/app/dom0"
	"cubicle/app/program"
	"cubicle/guid/dock"
	"cubicle/theme"
)

type options struct {
	program.Flags
	Manager string `help:"Program that shows the Qube Manager (default: qube-manager beside this program)." placeholder:"PATH" type:"path"`
}

func main() {
	var o options
	kong.Parse(&o, kong.Name("qubes-tray"), kong.Description("The running qubes in the desktop's tray."))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, "qubes-tray:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) error {
	address, err := o.Daemon()
	if err != nil {
		return err
	}
	session := os.Getenv("DBUS_SESSION_BUS_ADDRESS")
	if session == "" {
		return errors.New("DBUS_SESSION_BUS_ADDRESS is not set: there is no session whose tray could be used")
	}
	if o.Manager == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("find the Qube Manager: %w", err)
		}
		o.Manager = filepath.Join(filepath.Dir(self), "qube-manager")
	}
	screen, err := dock.Open("")
	if err != nil {
		return err
	}
	defer screen.Close()
	metadata, err := program.Metadata()
	if err != nil {
		return err
	}
	metadata.ID, metadata.Name, metadata.Icon = "org.cubicle.QubesTray", "Qubes Tray", nil
	if err := program.Folders(metadata.ID); err != nil {
		return err
	}
	if err := program.Compose(); err != nil {
		return err
	}
	client := dom0.Connect(address)
	defer client.Close()
	app.SetMetadata(metadata)
	a := app.New()
	a.Settings().SetTheme(theme.New())
	// Fyne ends with its last window, and there may be none: this one is
	// never shown.
	a.NewWindow("Qubes tray")

	d := &desk{app: a, client: client, screen: screen, manager: o.Manager, failed: make(chan error, 1)}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	err = d.connect(ctx, session)
	if err == nil {
		a.Lifecycle().SetOnStarted(func() { d.start(ctx) })
		go func() {
			<-ctx.Done()
			fyne.Do(a.Quit)
		}()
		a.Run()
		d.stop()
	}
	stop()
	d.close()
	select {
	case failed := <-d.failed:
		err = errors.Join(err, failed)
	default:
	}
	return err
}

// dial makes a connection of its own to the session's bus: every side of the
// tray's protocol has one, as if it were a program of its own.
func dial(session string) (*dbus.Conn, error) {
	conn, err := dbus.Connect(session)
	if err != nil {
		return nil, fmt.Errorf("session bus %s: %w", session, err)
	}
	return conn, nil
}

// managerClass is the window class of the Qube Manager.
const managerClass = "Qube Manager"

// openManager brings the Manager's window forward, or starts the program. It
// is called where Fyne runs: that thread lives as long as the program, and
// the kernel ends the Manager with the thread that has started it.
func (d *desk) openManager() error {
	found, err := d.screen.Activate(managerClass)
	if err != nil || found {
		return err
	}
	cmd := exec.Command(d.manager)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the Qube Manager: %w", err)
	}
	go func() {
		if err := cmd.Wait(); err != nil {
			slog.Warn("the Qube Manager has ended", "error", err)
		}
	}()
	return nil
}
