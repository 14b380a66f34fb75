"""What an access meets, and why: every denial names the kernel function and who is in the way."""

from dataclasses import dataclass
from enum import Enum

from fakedev.model.flags import (
    IORESOURCE_BUSY,
    IORESOURCE_EXCLUSIVE,
    IORESOURCE_SYSTEM_RAM,
)
from fakedev.model.kernel import KernelRules
from fakedev.model.resource import Resource


class Access(Enum):
    """What happens to the bytes of a page.

    DENY, ALLOW and ZEROS are the answers 0, 1 and 2 of `devmem_is_allowed`. FAULT: allowed, but
    the kernel cannot translate the address; read and write give EFAULT there.
    """

    DENY = 0
    ALLOW = 1
    ZEROS = 2
    FAULT = 3


@dataclass(frozen=True, slots=True)
class Verdict:
    """The answer to one access.

    `errno` is 0 when allowed. `rule` is a sentence in kernel terms. `resource` is what is in the
    way, if anything is. The verdict holds for every access within `start` to `end` (exclusive).
    `access` is ZEROS as soon as one page reads as zeros.
    """

    allowed: bool
    errno: int
    rule: str
    resource: Resource | None
    access: Access
    start: int
    end: int


def since_text(resource: Resource) -> str:
    """Say when a resource came, if that was after the start."""
    return f" since event {resource.since}" if resource.since else ""


def ram_rule(page: int, resource: Resource) -> str:
    """Say that a page is System RAM."""
    named = resource.name.startswith("System RAM")
    what = resource if named else f"System RAM of {resource}"
    return f"devmem_is_allowed: page {page:#x} is {what}{since_text(resource)}"


def exclusive_rule(page: int, resource: Resource, rules: KernelRules) -> str:
    """Say which test of `resource_is_exclusive` made a page exclusive, and for whom."""
    who = f"{resource}{since_text(resource)}"
    ram = IORESOURCE_SYSTEM_RAM | IORESOURCE_EXCLUSIVE
    if rules.has_exclusive_system_ram and resource.matches(ram):
        return f"iomem_is_exclusive: page {page:#x} is exclusive System RAM of {who}"
    if resource.matches(IORESOURCE_BUSY | IORESOURCE_EXCLUSIVE):
        return f"iomem_is_exclusive: page {page:#x} is BUSY and EXCLUSIVE, claimed by {who}"
    return f"iomem_is_exclusive: page {page:#x} is BUSY under IO_STRICT_DEVMEM, claimed by {who}"
