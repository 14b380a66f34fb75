"""Attributes as data: a name, a mode, what a read shows and what a write does."""

import errno
from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from fakedev.views.live import Attribute
from fakedev.views.node import CAP_SYS_ADMIN, Opener, Refused
from fakedev.views.pci.subject import Subject

Show = Callable[[Subject], str]
Store = Callable[[Subject, str, Opener], None]


def always(_: Subject) -> bool:
    """Every function has it."""
    return True


class Spec(NamedTuple):
    """One attribute. `show` and `store` may be missing (EIO); `verb` as `Attribute` has it."""

    mode: int
    show: Show | None = None
    store: Store | None = None
    when: Callable[[Subject], bool] = always
    verb: bool = False

    def node(self, subject: Subject) -> Attribute:
        """The attribute of one function."""
        return Attribute(
            partial(self.show, subject) if self.show else None,
            partial(self.store, subject) if self.store else None,
            mode=self.mode,
            alive=subject.alive,
            verb=self.verb,
        )


Specs = Mapping[str, Spec]


def group(when: Callable[[Subject], bool], specs: Specs) -> dict[str, Spec]:
    """Attributes that appear together."""
    return {name: spec._replace(when=when) for name, spec in specs.items()}


def shown(text: Callable[[Subject], object], when: Callable[[Subject], bool] = always) -> Spec:
    """A read-only attribute of one line."""
    return Spec(0o444, lambda subject: f"{text(subject)}\n", when=when)


def admin(store: Store) -> Store:
    """EPERM without CAP_SYS_ADMIN, before anything else is looked at."""

    def checked(subject: Subject, text: str, opener: Opener) -> None:
        if not opener.capable(CAP_SYS_ADMIN):
            raise Refused(errno.EPERM)
        store(subject, text, opener)

    return checked
