package core

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"cubicle/daemon/engine"
	"cubicle/daemon/storage"
)

// Kind is an exception name of spec/admin-api.md §1.2.
type Kind string

// The kinds: upstream's exceptions, and JobCancelled.
const (
	General            Kind = "QubesException"
	Cancelled          Kind = "JobCancelled"
	NotFound           Kind = "QubesVMNotFoundError"
	InvalidUUID        Kind = "QubesVMInvalidUUIDError"
	AlreadyExists      Kind = "QubesVMAlreadyExistsError"
	VMError            Kind = "QubesVMError"
	InUse              Kind = "QubesVMInUseError"
	NotStarted         Kind = "QubesVMNotStartedError"
	NotRunning         Kind = "QubesVMNotRunningError"
	NotPaused          Kind = "QubesVMNotPausedError"
	CancelledPause     Kind = "QubesVMCancelledPauseError"
	NotSuspended       Kind = "QubesVMNotSuspendedError"
	NotHalted          Kind = "QubesVMNotHaltedError"
	ShutdownTimeout    Kind = "QubesVMShutdownTimeoutError"
	NoTemplate         Kind = "QubesNoTemplateError"
	PoolInUse          Kind = "QubesPoolInUseError"
	BadValue           Kind = "QubesValueError"
	BadProperty        Kind = "QubesPropertyValueError"
	NoProperty         Kind = "QubesNoSuchPropertyError"
	NotImplemented     Kind = "QubesNotImplementedError"
	NoBackupProfile    Kind = "QubesBackupProfileNotFoundError"
	BackupCancelled    Kind = "BackupCancelledError"
	BackupRunning      Kind = "BackupAlreadyRunningError"
	NoMemory           Kind = "QubesMemoryError"
	FeatureNotFound    Kind = "QubesFeatureNotFoundError"
	TagNotFound        Kind = "QubesTagNotFoundError"
	LabelNotFound      Kind = "QubesLabelNotFoundError"
	LabelInUse         Kind = "QubesLabelInUseError"
	VolumeCopyInUse    Kind = "QubesVolumeCopyInUseError"
	PoolFailure        Kind = "StoragePoolException"
	DeviceNotAssigned  Kind = "DeviceNotAssigned"
	DeviceNotFound     Kind = "DeviceNotFound"
	DeviceAttached     Kind = "DeviceAlreadyAttached"
	DeviceAssigned     Kind = "DeviceAlreadyAssigned"
	UnrecognizedDevice Kind = "UnrecognizedDevice"
	UnexpectedDevice   Kind = "UnexpectedDeviceProperty"

	PermissionDenied  Kind = "PermissionDenied"
	ProtocolViolation Kind = "ProtocolError"
	BadDeviceMode     Kind = "QubesUnrecognizedDeviceAssignmentMode"
	NoVolumeToken     Kind = "QubesVolumeCopyTokenNotFoundError"
	InvalidTag        Kind = "QubesInvalidTagError"
	InvalidLabel      Kind = "QubesInvalidLabelError"
	InvalidLabelValue Kind = "QubesInvalidLabelValueError"

	// Lookups that upstream never tells of (spec/admin-api.md §1.2).
	NoRevision Kind = "QubesVolumeRevisionNotFoundError"
	NoPool     Kind = "QubesPoolNotFoundError"
	NoVolume   Kind = "QubesVolumeNotFoundError"
)

// Error is a failure that is told to people: in the Admin API, over D-Bus and
// as the end of a job.
type Error struct {
	Kind Kind
	Text string // names the subject; for people
	Err  error  // the cause, or nil
}

func (e *Error) Error() string {
	if e.Err == nil {
		return e.Text
	}
	return e.Text + ": " + e.Err.Error()
}

func (e *Error) Unwrap() error { return e.Err }

// Failf returns an Error of a kind.
func Failf(k Kind, format string, args ...any) error {
	return &Error{Kind: k, Text: fmt.Sprintf(format, args...)}
}

// wrap tells what failed, keeping the kind of the cause.
func wrap(err error, format string, args ...any) error {
	return &Error{Kind: KindOf(err), Text: fmt.Sprintf(format, args...), Err: err}
}

// KindOf is the kind of any error.
func KindOf(err error) Kind {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Kind
	}
	switch {
	case errors.Is(err, context.Canceled):
		return Cancelled
	case errors.Is(err, engine.ErrNoMemory), errors.Is(err, unix.ENOMEM), errors.Is(err, unix.EAGAIN):
		return NoMemory
	case errors.Is(err, engine.ErrUnsupported):
		return NotImplemented
	case errors.Is(err, engine.ErrNotRunning):
		return NotRunning
	case errors.Is(err, storage.ErrNoSpace), errors.Is(err, storage.ErrInUse), errors.Is(err, storage.ErrNotFound),
		errors.Is(err, storage.ErrExists), errors.Is(err, storage.ErrBadVolume),
		errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT), errors.Is(err, unix.EROFS), errors.Is(err, unix.EIO):
		return PoolFailure
	}
	return VMError
}
