"""Attributes of extended capabilities: error counters (AER) and virtual functions (SR-IOV)."""

import errno
from collections.abc import Sequence
from functools import partial

from fakedev.devices.pci import express
from fakedev.devices.pci.parsing import kstrtoul
from fakedev.views.node import Opener, Refused
from fakedev.views.pci.spec import Spec, Specs, group, shown
from fakedev.views.pci.subject import Subject
from fakedev.views.pci.texts import kstrtobool

_CORRECTABLE = (
    "RxErr", "BadTLP", "BadDLLP", "Rollover", "Timeout", "NonFatalErr", "CorrIntErr", "HeaderOF",
)  # fmt: skip
_UNCORRECTABLE = (
    "Undefined", "DLP", "SDES", "TLP", "FCP", "CmpltTO", "CmpltAbrt", "UnxCmplt", "RxOF", "MalfTLP",
    "ECRC", "UnsupReq", "ACSViol", "UncorrIntErr", "BlockedTLP", "AtomicOpBlocked", "TLPBlockedErr",
    "PoisonTLPBlocked", "DMWrReqBlocked", "IDECheck", "MisIDETLP", "PCRC_CHECK", "TLPXlatBlocked",
)  # fmt: skip
_ROOTS = (express.ROOT_PORT, express.RC_EVENT_COLLECTOR)


def _counters(names: Sequence[str], total: str, _: Subject) -> str:
    """No error ever happens here, so every counter stays at 0."""
    return "".join(f"{name} 0\n" for name in (*names, total))


_AER = group(
    lambda subject: bool(subject.aer),
    {
        "aer_dev_correctable": Spec(0o444, partial(_counters, _CORRECTABLE, "TOTAL_ERR_COR")),
        "aer_dev_fatal": Spec(0o444, partial(_counters, _UNCORRECTABLE, "TOTAL_ERR_FATAL")),
        "aer_dev_nonfatal": Spec(0o444, partial(_counters, _UNCORRECTABLE, "TOTAL_ERR_NONFATAL")),
    },
)
_AER_ROOT = group(
    lambda subject: bool(subject.aer) and subject.device.function.port_type in _ROOTS,
    {f"aer_rootport_total_err_{kind}": shown(lambda _: 0) for kind in ("cor", "fatal", "nonfatal")},
)


def _field(offset: int, width: int, subject: Subject) -> int:
    return subject.device.function.config.get(subject.sriov + offset, width)


def _set_numvfs(subject: Subject, text: str, _: Opener) -> None:
    """`sriov_numvfs_store`: nobody here can make virtual functions (ENOENT)."""
    wanted = kstrtoul(text)
    if wanted > 0xFFFF or wanted > _field(0x0E, 2, subject):
        raise Refused(errno.ERANGE)
    if wanted != _field(0x10, 2, subject):
        raise Refused(errno.ENOENT)


_SRIOV = group(
    lambda subject: bool(subject.sriov),
    {
        "sriov_totalvfs": shown(partial(_field, 0x0E, 2)),
        "sriov_numvfs": Spec(0o644, lambda subject: f"{_field(0x10, 2, subject)}\n", _set_numvfs),
        "sriov_offset": shown(partial(_field, 0x14, 2)),
        "sriov_stride": shown(partial(_field, 0x16, 2)),
        "sriov_vf_device": shown(lambda subject: f"{_field(0x1A, 2, subject):x}"),
        "sriov_drivers_autoprobe": Spec(
            0o644, lambda _: "1\n", lambda _subject, text, _opener: _check_bool(text)
        ),
    },
)


def _check_bool(text: str) -> None:
    kstrtobool(text)


SPECS: Specs = {**_AER, **_AER_ROOT, **_SRIOV}
