package words

import (
	"fmt"
	"strings"

	"cubicle/daemon/qube"
)

// State is a qube's state in a word.
func State(s qube.State) string {
	switch s {
	case qube.Running:
		return T("running")
	case qube.Transient:
		return T("starting")
	case qube.Paused:
		return T("paused")
	case qube.Halting:
		return T("shutting down")
	case qube.Dying:
		return T("stopping")
	case qube.Crashed:
		return T("crashed")
	case qube.NA:
		return T("broken")
	}
	return T("halted")
}

// Memory writes bytes as qubes' memory is set: a MB has 1024² bytes.
func Memory(bytes uint64) string {
	const mb = 1 << 20
	if bytes < 10000*mb {
		return fmt.Sprintf("%d MB", (bytes+mb/2)/mb)
	}
	return fmt.Sprintf("%.1f GB", float64(bytes)/(1024*mb))
}

// Size writes bytes on a disk with a decimal unit, three digits at most.
func Size(bytes uint64) string {
	if bytes < 1000 {
		return fmt.Sprintf("%d B", bytes)
	}
	value, unit := float64(bytes)/1000, 0
	units := []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	for value >= 999.5 && unit < len(units)-1 {
		value /= 1000
		unit++
	}
	if value < 9.95 {
		return fmt.Sprintf("%.1f %s", value, units[unit])
	}
	return fmt.Sprintf("%.0f %s", value, units[unit])
}

// CouldNot is the first line about a failed piece of work: a job's kind, or
// what a window does itself.
func CouldNot(kind, name string) string {
	switch kind {
	case "start":
		return T("Could not start %s", name)
	case "shutdown":
		return T("Could not shut down %s", name)
	case "kill":
		return T("Could not kill %s", name)
	case "pause":
		return T("Could not pause %s", name)
	case "unpause":
		return T("Could not resume %s", name)
	case "create":
		return T("Could not create %s", name)
	case "clone":
		return T("Could not clone %s", name)
	case "remove":
		return T("Could not remove %s", name)
	case "app":
		return T("Could not open an application in %s", name)
	case "run":
		return T("Could not run a command in %s", name)
	case "notes":
		return T("Could not save the notes of %s", name)
	case "revert":
		return T("Could not revert a volume of %s", name)
	case "assign":
		return T("Could not assign a device to %s", name)
	case "unassign":
		return T("Could not take a device from %s", name)
	case "keep":
		return T("Could not keep a revision of %s", name)
	case "resize":
		return T("Could not resize a volume of %s", name)
	case "settings":
		return T("Could not open the settings of %s", name)
	case "set":
		return T("Could not change a setting of %s", name)
	}
	return T("Could not %s %s", kind, name)
}

// Reason is why something failed, as a sentence: the daemon's own words, and
// before them, where the window speaks another language, what kind of failure
// it is. The kind is an exception's name of the Admin API, or empty.
func Reason(kind, text string) string {
	if text == "" {
		text = kind
	}
	if text == "" {
		return T("The daemon gave no reason.")
	}
	text = sentence(Known(text))
	if what := fault(kind); what != "" && Language() != "en" {
		return what + " (" + text + ")"
	}
	return text
}

func sentence(text string) string {
	text = strings.ToUpper(text[:1]) + text[1:]
	if !strings.ContainsAny(text[len(text)-1:], ".!?…") {
		text += "."
	}
	return text
}

// fault is a kind of failure as a sentence, or empty where the kind says
// nothing (spec/admin-api.md §1.2).
func fault(kind string) string {
	switch kind {
	case "QubesDaemonCommunicationError":
		return T("qubesd cannot be reached.")
	case "QubesVMNotFoundError":
		return T("There is no such qube.")
	case "QubesVMAlreadyExistsError":
		return T("There is a qube of that name already.")
	case "QubesVMInUseError":
		return T("The qube is in use.")
	case "QubesVMNotStartedError", "QubesVMNotRunningError":
		return T("The qube does not run.")
	case "QubesVMNotPausedError":
		return T("The qube is not paused.")
	case "QubesVMNotHaltedError":
		return T("The qube has to be halted for that.")
	case "QubesVMShutdownTimeoutError":
		return T("The qube did not end in time.")
	case "QubesNoTemplateError":
		return T("The qube has no template.")
	case "QubesMemoryError":
		return T("There is not enough memory.")
	case "QubesValueError", "QubesPropertyValueError":
		return T("That value cannot be used.")
	case "QubesNoSuchPropertyError":
		return T("There is no such setting.")
	case "QubesNotImplementedError":
		return T("That is not possible here.")
	case "QubesPoolInUseError", "QubesVolumeCopyInUseError":
		return T("The disk is in use.")
	case "StoragePoolException":
		return T("The disk cannot be used.")
	case "QubesVolumeNotFoundError", "QubesVolumeRevisionNotFoundError", "QubesPoolNotFoundError":
		return T("There is no such disk or revision.")
	case "DeviceNotAssigned", "DeviceNotFound", "UnrecognizedDevice", "UnexpectedDeviceProperty":
		return T("There is no such device.")
	case "DeviceAlreadyAttached", "DeviceAlreadyAssigned":
		return T("The device is in use.")
	case "PermissionDenied":
		return T("That is not allowed.")
	case "JobCancelled":
		return T("It was called off.")
	}
	return ""
}
