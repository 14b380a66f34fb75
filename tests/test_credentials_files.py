"""Who may open, chmod and chown a file of the machine, and how little is asked for it."""

import errno
import os
import signal
import stat

import pytest
from support import need, wait_for

from fakedev.fuse.credentials import EVERYTHING, Callers, Known, user_namespace
from fakedev.views.node import (
    CAP_CHOWN,
    CAP_DAC_OVERRIDE,
    CAP_DAC_READ_SEARCH,
    CAP_FOWNER,
    Attr,
    Opener,
    Refused,
    TextFile,
    check_access,
)

R, W, X = os.R_OK, os.W_OK, os.X_OK
DIRECTORY = stat.S_IFDIR


def who(uid: int, *groups: int, caps: int | None = 0) -> Opener:
    """Somebody with these capabilities; None: nobody may ask for them."""

    def effective() -> int:
        assert caps is not None, "the mode says it"
        return caps

    return Opener(1, uid, os.O_RDONLY, groups, effective)


@pytest.mark.parametrize(
    ("mode", "owner", "caller", "mask", "allowed"),
    [
        (0o600, (0, 0), who(0, caps=None), R | W, True),
        (0o044, (7, 7), who(7, 7), R, False),  # the owner's bits count, not the best ones
        (0o604, (0, 7), who(5, 7), R, False),
        (0o640, (0, 7), who(5, 3, 7, caps=None), R, True),
        (0o640, (0, 7), who(5, 7), W, False),
        (0o604, (0, 0), who(5, caps=None), R, True),
        (0o000, (0, 0), who(5, caps=1 << CAP_DAC_READ_SEARCH), R, True),
        (0o000, (0, 0), who(5, caps=1 << CAP_DAC_READ_SEARCH), W, False),
        (0o000, (0, 0), who(5, caps=1 << CAP_DAC_OVERRIDE), R | W, True),
        (0o666, (0, 0), who(0, caps=EVERYTHING), X, False),
        (0o001, (0, 0), who(0, caps=EVERYTHING), X, True),
        (DIRECTORY, (0, 0), who(5, caps=1 << CAP_DAC_READ_SEARCH), R | X, True),
        (DIRECTORY, (0, 0), who(5, caps=1 << CAP_DAC_READ_SEARCH), W, False),
        (DIRECTORY, (0, 0), who(5, caps=1 << CAP_DAC_OVERRIDE), W | X, True),
        (0o600, (0, 0), Opener(1, 0, 0), R | W, True),  # of a plain mount
        (0o600, (0, 0), Opener(1, 5, 0), R, False),
    ],
)
def test_generic_permission(
    mode: int, owner: tuple[int, int], caller: Opener, mask: int, allowed: bool
) -> None:
    if allowed:
        check_access(Attr(mode), owner, caller, mask)
    else:
        with pytest.raises(Refused) as refused:
            check_access(Attr(mode), owner, caller, mask)
        assert refused.value.errno == errno.EACCES


def file() -> TextFile:
    return TextFile(lambda _: b"")


def test_chmod_is_for_the_owner_and_cap_fowner() -> None:
    node = file()
    with pytest.raises(Refused) as refused:
        node.chmod(who(5), 0o600)
    assert refused.value.errno == errno.EPERM
    node.chmod(who(5, caps=1 << CAP_FOWNER), 0o600)
    node.chmod(who(0, caps=None), node.mode | 0o040)
    assert node.attr().mode == stat.S_IFREG | 0o640


@pytest.mark.parametrize(
    ("caller", "change", "after"),
    [
        (who(0, caps=1 << CAP_CHOWN), (5, 6), (5, 6)),
        (who(0, caps=1 << CAP_CHOWN), (-1, 6), (0, 6)),
        (who(0, caps=1 << CAP_CHOWN), (5, -1), (5, 0)),
        (who(0, 6, caps=None), (-1, 6), (0, 6)),
        (who(0, 6), (-1, 7), None),
        (who(0, 6), (5, 6), None),
        (who(5, 6), (-1, 6), None),
        (who(0, caps=None), (0, -1), (0, 0)),
    ],
)
def test_chown(caller: Opener, change: tuple[int, int], after: tuple[int, int] | None) -> None:
    node = file()
    if after is None:
        with pytest.raises(Refused) as refused:
            node.chown(caller, *change)
        assert refused.value.errno == errno.EPERM
    else:
        node.chown(caller, *change)
    assert node.owner == (after or (0, 0))


def test_who_is_outside_is_not_asked_for_capabilities() -> None:
    callers = Callers("user:[1]")
    assert callers.opener(os.getpid(), 0, 0).capable(CAP_CHOWN)
    assert not callers.is_initial(os.getpid())
    inside = Callers(user_namespace(os.getpid()))
    assert inside.is_initial(os.getpid())


def test_nobody_can_tell_of_who_is_gone() -> None:
    child = os.fork()
    if not child:
        os._exit(0)
    os.waitpid(child, 0)
    assert Callers("user:[1]").opener(child, 0, 0).capable(CAP_CHOWN)


def test_who_has_left_the_namespace_has_nothing() -> None:
    unshare = need("unshare", "util-linux")
    child = os.fork()
    if not child:
        os.execv(unshare, [unshare, "-Ur", "sleep", "60"])
    here = user_namespace(os.getpid())
    callers = Callers(here)
    callers._outside = "user:[1]"  # the tests are not the server
    try:
        wait_for(lambda: user_namespace(child) != here, "the child has a namespace")
        assert not callers.opener(child, 0, 0).capable(CAP_CHOWN)
        callers.known = lambda *_: Known(0, (0,), EVERYTHING)
        assert not callers.opener(child, 0, 0).capable(CAP_CHOWN)
        assert callers.opener(os.getpid(), 0, 0).capable(CAP_CHOWN)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def test_what_is_known_comes_first() -> None:
    callers = Callers(user_namespace(os.getpid()))
    callers.known = lambda _, real: Known(7 if real else 8, (9, 10), 1 << CAP_CHOWN)
    opener = callers.opener(os.getpid(), 0, 0)
    assert (opener.uid, opener.groups) == (8, (9, 10))
    assert callers.opener(os.getpid(), 0, 0, real=True).uid == 7
    assert opener.capable(CAP_CHOWN)
    assert not opener.capable(CAP_FOWNER)
    later = opener.as_of_now()
    callers.known = lambda *_: None
    assert later.effective is not None
    assert later.effective() == 1 << CAP_CHOWN
