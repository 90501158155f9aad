package x11

import (
	"errors"
	"fmt"

	"github.com/BurntSushi/xgb/randr"
	"github.com/BurntSushi/xgb/xproto"
)

// ResizeScreen gives the screen one output of exactly width×height pixels,
// for which it makes a mode if there is none, and makes the root window as
// large. A server whose outputs take no new modes (Xvfb) refuses. Needs
// InitRandR.
func (c *Conn) ResizeScreen(width, height uint16) error {
	return wrap(fmt.Sprintf("resize the screen to %d×%d", width, height), c.orLost(c.resizeScreen(width, height)))
}

func (c *Conn) resizeScreen(width, height uint16) error {
	limits, err := randr.GetScreenSizeRange(c.x, c.Root()).Reply()
	if err != nil {
		return err
	}
	if width < limits.MinWidth || width > limits.MaxWidth || height < limits.MinHeight || height > limits.MaxHeight {
		return fmt.Errorf("the server allows %d×%d to %d×%d", limits.MinWidth, limits.MinHeight, limits.MaxWidth, limits.MaxHeight)
	}
	res, err := randr.GetScreenResources(c.x, c.Root()).Reply()
	if err != nil {
		return err
	}
	if len(res.Outputs) == 0 || len(res.Crtcs) == 0 {
		return errors.New("the server has no output")
	}
	output := res.Outputs[0]
	info, err := randr.GetOutputInfo(c.x, output, res.ConfigTimestamp).Reply()
	if err != nil {
		return err
	}
	crtc := info.Crtc
	if crtc == 0 {
		if len(info.Crtcs) == 0 {
			return errors.New("the server's output has no controller")
		}
		crtc = info.Crtcs[0]
	}
	mode, err := c.screenMode(res, info, output, width, height)
	if err != nil {
		return err
	}
	previous := randr.Mode(0)
	if was, err := randr.GetCrtcInfo(c.x, crtc, res.ConfigTimestamp).Reply(); err == nil {
		previous = was.Mode
	}
	// While the size changes no controller may show more than the screen.
	c.GrabServer()
	defer c.UngrabServer()
	if err := c.setCrtc(crtc, 0, res.ConfigTimestamp); err != nil {
		return fmt.Errorf("switch the output off: %w", err)
	}
	const dpi = 96
	mm := func(px uint16) uint32 { return (uint32(px)*254 + dpi*5) / (dpi * 10) }
	sizeErr := randr.SetScreenSizeChecked(c.x, c.Root(), width, height, mm(width), mm(height)).Check()
	if sizeErr != nil && previous != 0 {
		mode = previous
	}
	if err := c.setCrtc(crtc, mode, res.ConfigTimestamp, output); err != nil {
		return fmt.Errorf("switch the output on: %w", err)
	}
	return sizeErr
}

// screenMode returns a mode of that size that output takes.
func (c *Conn) screenMode(res *randr.GetScreenResourcesReply, info *randr.GetOutputInfoReply, output randr.Output, width, height uint16) (randr.Mode, error) {
	var known randr.Mode
	for _, m := range res.Modes {
		if m.Width != width || m.Height != height {
			continue
		}
		known = randr.Mode(m.Id)
		for _, taken := range info.Modes {
			if taken == known {
				return known, nil
			}
		}
	}
	if known == 0 {
		name := fmt.Sprintf("qube-%dx%d", width, height)
		r, err := randr.CreateMode(c.x, c.Root(), screenTiming(width, height, len(name)), name).Reply()
		if err != nil {
			return 0, fmt.Errorf("create mode: %w", err)
		}
		known = r.Mode
	}
	if err := randr.AddOutputModeChecked(c.x, output, known).Check(); err != nil {
		return 0, fmt.Errorf("add mode: %w", err)
	}
	return known, nil
}

// screenTiming makes up the timing of a screen that nobody scans out, at 60 Hz.
func screenTiming(width, height uint16, nameLen int) randr.ModeInfo {
	total := func(n, blank uint16) uint16 { return min(n, 0xffff-blank) + blank }
	h, v := total(width, 48), total(height, 12)
	return randr.ModeInfo{
		Width: width, HsyncStart: h - 32, HsyncEnd: h - 16, Htotal: h,
		Height: height, VsyncStart: v - 9, VsyncEnd: v - 6, Vtotal: v,
		DotClock: uint32(h) * uint32(v) * 60, NameLen: uint16(nameLen),
	}
}

func (c *Conn) setCrtc(crtc randr.Crtc, mode randr.Mode, config Timestamp, outputs ...randr.Output) error {
	r, err := randr.SetCrtcConfig(c.x, crtc, xproto.TimeCurrentTime, config, 0, 0, mode, randr.RotationRotate0, outputs).Reply()
	if err != nil {
		return err
	}
	if r.Status != randr.SetConfigSuccess {
		return fmt.Errorf("the server answers with status %d", r.Status)
	}
	return nil
}

// CreateInputOnly makes an unmapped window that shows nothing, ignored by
// window managers.
func (c *Conn) CreateInputOnly(parent Window, x, y int16, width, height uint16, a Attributes) (Window, error) {
	id, err := xproto.NewWindowId(c.x)
	if err != nil {
		return 0, wrap("create window", err)
	}
	a.OverrideRedirect = Ptr(true)
	mask, list := a.values()
	xproto.CreateWindow(c.x, 0, id, parent, x, y, width, height, 0, xproto.WindowClassInputOnly, 0, mask, list)
	return id, nil
}
