package ask

import (
	"strings"

	"cubicle/app/words"
)

// phrase is what a call means, in words.
type phrase struct {
	text   string // with %s for the caller; the targets follow
	danger string // what allowing it gives away, or empty
}

// phraseOf is what a call of the service means (spec/services.md).
func phraseOf(service string) phrase {
	switch service {
	case "qubes.Filecopy":
		return phrase{text: words.T("%s wants to copy files to:")}
	case "qubes.OpenInVM":
		return phrase{text: words.T("%s wants to open a file in:")}
	case "qubes.OpenURL":
		return phrase{text: words.T("%s wants to open a web address in:")}
	case "qubes.StartApp":
		return phrase{text: words.T("%s wants to start an application in:")}
	case "qubes.VMShell", "qubes.VMExec", "qubes.VMExecGUI":
		return phrase{words.T("%s wants to run commands in:"), words.T("It can then do there whatever you can do there.")}
	case "qubes.VMRootShell", "qubes.VMRootExec":
		return phrase{words.T("%s wants to run commands as root in:"), words.T("It can then do there whatever it likes.")}
	case "qubes.ClipboardPaste":
		return phrase{text: words.T("%s wants to paste its clipboard into:")}
	case "qubes.ConnectTCP":
		return phrase{text: words.T("%s wants to connect to a network port of:")}
	case "qubes.UpdatesProxy":
		return phrase{text: words.T("%s wants to download updates through:")}
	case "qubes.Gpg", "qubes.Gpg2":
		return phrase{words.T("%s wants to use the keys of:"), words.T("It can then sign and decrypt with them.")}
	case "qubes.GpgImportKey":
		return phrase{text: words.T("%s wants to give a key to:")}
	case "qubes.PdfConvert":
		return phrase{text: words.T("%s wants to have a document made safe by:")}
	case "qubes.GetImageRGBA":
		return phrase{text: words.T("%s wants to have a picture read by:")}
	case "qubes.InputMouse", "qubes.InputTablet":
		return phrase{words.T("%s wants to move the pointer of:"), words.T("Its mouse can then click on whatever is there.")}
	case "qubes.InputKeyboard":
		return phrase{words.T("%s wants to type on the keyboard of:"), words.T("It can then type commands there.")}
	case "qubes.USB", "qubes.USBAttach":
		return phrase{text: words.T("%s wants to reach a USB device of:")}
	case "qubes.GetDate":
		return phrase{text: words.T("%s wants to know the time from:")}
	case "qubes.Notifications":
		return phrase{text: words.T("%s wants to show notifications in:")}
	case "qubes.Backup", "qubes.Restore":
		return phrase{text: words.T("%s wants to keep or read a backup in:")}
	}
	switch {
	case strings.HasPrefix(service, "admin."), strings.HasPrefix(service, "policy."):
		return phrase{words.T("%s wants to administer:"), words.T("This changes or reads the settings of your system.")}
	}
	return phrase{text: words.T("%s wants to use a service of:")}
}
