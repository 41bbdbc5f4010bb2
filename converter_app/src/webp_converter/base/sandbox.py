"""Puts a process into a sandbox before it reads strangers' bytes: from then on it computes, reads and writes
the one socket that is open, and does nothing else.

The layers don't depend on each other. The essential one is the system call filter; Landlock closes the file
system and the network once more if the kernel has it; the limits work without both.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
from enum import Flag, auto
from pathlib import Path

from webp_converter.base import linux


class Layer(Flag):
    """The layers of a sandbox, besides its limits."""

    SECCOMP = auto()
    LANDLOCK = auto()

    def __str__(self) -> str:
        return ", ".join(layer.name.lower() for layer in Layer if layer in self and layer.name) or "none"


class SandboxError(Exception):
    """The reason why a process can't be sandboxed."""


_NOBODY = 65534

# What decoding, encoding and Python itself need. Threads aren't among it: no encoder starts any here.
_NEEDED = (
    *("read", "readv", "write", "close", "exit", "exit_group", "restart_syscall"),
    *("brk", "mremap", "munmap", "madvise", "futex", "sched_yield", "getrandom"),
    *("clock_gettime", "clock_nanosleep", "gettimeofday", "getpid", "gettid", "getcwd"),
    *("rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack"),
)

# Nothing that is built in asks for these: who does is a stranger. All others are refused and survived.
_DEADLY = (
    *(
        "execve",
        "execveat",
        "fork",
        "vfork",
        "ptrace",
        "process_vm_readv",
        "process_vm_writev",
        "pidfd_getfd",
    ),
    *("socket", "connect", "bind", "io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("bpf", "userfaultfd", "perf_event_open", "keyctl", "add_key", "request_key", "memfd_create"),
    *("mount", "umount2", "unshare", "setns", "pivot_root", "chroot", "init_module", "finit_module"),
    *("kexec_load", "seccomp", "setuid", "setresuid", "setgid", "setresgid"),
)

_ALLOW, _REFUSE, _KILL = 0x7FFF0000, 0x00050001, 0x80000000  # SCMP_ACT_*; the second is with EPERM
_EQUAL, _EQUAL_MASKED = 4, 7  # SCMP_CMP_*
_PROT_EXEC = 4
_PR_SET_NO_NEW_PRIVS = 38


class _Comparison(ctypes.Structure):
    """`struct scmp_arg_cmp`."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


def _libseccomp() -> ctypes.CDLL | None:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError:
        return None
    context = ctypes.c_void_p
    library.seccomp_init.argtypes, library.seccomp_init.restype = [ctypes.c_uint32], context
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_rule_add_array.argtypes = [
        *(context, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint),
        ctypes.POINTER(_Comparison),
    ]
    library.seccomp_load.argtypes = library.seccomp_release.argtypes = [context]
    return library


# Loaded with this module, by the server that processes are forked from: a sandboxed one opens nothing.
_seccomp = _libseccomp()


def lock(channel: int, required: bool) -> Layer:
    """Locks this process up for good, with nothing open but `channel`. It must have no other thread.

    :returns: the layers that hold; without `required`, maybe none.
    :raises SandboxError: the filter of system calls, though `required`, can't be set; or a limit.
    """
    try:
        _close_all_but(channel)
        os.environ.clear()
        os.chdir("/")
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a Python handler would have it go on
        if os.geteuid() == 0:  # a command that root gave
            os.setgroups([])
            os.setresgid(_NOBODY, _NOBODY, _NOBODY)
            os.setresuid(_NOBODY, _NOBODY, _NOBODY)
        linux.die_with_parent()  # a change of the account would have undone it
        linux.control_process(_PR_SET_NO_NEW_PRIVS, 1)
        layers = Layer.LANDLOCK if _confine() else Layer(0)
        for limit in (
            resource.RLIMIT_FSIZE,
            resource.RLIMIT_NOFILE,
            resource.RLIMIT_NPROC,
            resource.RLIMIT_CORE,
        ):
            resource.setrlimit(limit, (0, 0))
    except OSError as error:
        raise SandboxError(f"can't enter the sandbox: {error}") from error
    if problem := _filter_calls():
        if required:
            raise SandboxError(problem)
        return layers
    return layers | Layer.SECCOMP


def _close_all_but(channel: int) -> None:
    for entry in list(Path("/proc/self/fd").iterdir()):
        if int(entry.name) != channel:
            with contextlib.suppress(OSError):  # the one that the directory was read by
                os.close(int(entry.name))


def _filter_calls() -> str:
    """Sets the filter of system calls; what is in the way, empty: nothing."""
    if _seccomp is None:
        return "libseccomp.so.2 isn't there (Debian's package: libseccomp2)"
    context = _seccomp.seccomp_init(_REFUSE)
    if not context:
        return "libseccomp refuses to begin"
    not_executable = _Comparison(2, _EQUAL_MASKED, _PROT_EXEC, 0)
    own = _Comparison(0, _EQUAL, os.getpid())
    rules: list[tuple[str, int, list[_Comparison]]] = [
        *((name, _ALLOW, []) for name in _NEEDED),
        ("mmap", _ALLOW, [not_executable]),
        ("mprotect", _ALLOW, [not_executable]),
        ("tgkill", _ALLOW, [own]),  # how abort() ends a process
        *((name, _KILL, []) for name in _DEADLY),
    ]
    for name, action, conditions in rules:
        number = _seccomp.seccomp_syscall_resolve_name(name.encode())
        if number < 0:  # unknown to this processor, or to an older libseccomp: then it is refused
            continue
        array = (_Comparison * max(1, len(conditions)))(*conditions)
        if error := _seccomp.seccomp_rule_add_array(context, action, number, len(conditions), array):
            return f"libseccomp refuses the rule for {name}: {os.strerror(-error)}"
    if error := _seccomp.seccomp_load(context):
        return f"the filter of system calls can't be set: {os.strerror(-error)}"
    _seccomp.seccomp_release(context)
    return ""


# Landlock: https://docs.kernel.org/userspace-api/landlock.html. Its calls have the same numbers everywhere.

_CREATE_RULESET, _RESTRICT_SELF = 444, 446
_ASK_VERSION = 1


def _confine() -> bool:
    """Takes the file system, TCP and signals to others from this process; whether the kernel can."""
    version = linux.call(_CREATE_RULESET, None, 0, _ASK_VERSION)
    if version < 1:
        return False
    # What each version was the first to know: rename between directories, truncate, ioctl of devices.
    files = 13 + (version >= 2) + (version >= 3) + (version >= 5)
    handled = (ctypes.c_uint64 * 3)(
        (1 << files) - 1, 0b11 if version >= 4 else 0, 0b11 if version >= 6 else 0
    )
    size = 8 * (1 + (version >= 4) + (version >= 6))
    ruleset = linux.call(_CREATE_RULESET, ctypes.byref(handled), size, 0)
    if ruleset < 0:
        return False
    try:
        return linux.call(_RESTRICT_SELF, ruleset, 0) == 0
    finally:
        os.close(ruleset)
