"""Drivers as data: what they match, what they claim, how their probe ends (`struct pci_driver`)."""

import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from fakedev.devices.pci.device import PciDevice

ANY_ID = 0xFFFFFFFF
"""PCI_ANY_ID: matches every vendor, device or subsystem."""


class PciId(NamedTuple):
    """One line of an id table, `struct pci_device_id`; `data` is `driver_data`."""

    vendor: int
    device: int
    subvendor: int = ANY_ID
    subdevice: int = ANY_ID
    class_: int = 0
    mask: int = 0
    data: int = 0

    def matches(self, numbers: "PciId") -> bool:
        """`pci_match_one_device`: `numbers` holds what the function says it is."""
        return (
            self.vendor in (ANY_ID, numbers.vendor)
            and self.device in (ANY_ID, numbers.device)
            and self.subvendor in (ANY_ID, numbers.subvendor)
            and self.subdevice in (ANY_ID, numbers.subdevice)
            and not (self.class_ ^ numbers.class_) & self.mask
        )


class Users:
    """Who uses a module (`try_module_get`, `module_put`): it cannot be unloaded meanwhile."""

    __slots__ = ("_changed", "_count")

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0

    def add(self, number: int) -> None:
        """One more (1), or one less (-1)."""
        with self._changed:
            self._count += number
            self._changed.notify_all()

    def gone(self, seconds: float) -> bool:
        """Whether there is none, perhaps after a while."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._count, seconds)


class PciDriver:
    """A driver, loaded or not.

    `claims`: "all" BARs or their indexes; () claims nothing, as pci-stub, uio_pci_generic and
    pcieport do. `claim_name` is the name in /proc/iomem, `exclusive` the flag of the claim. A
    `probe_error` other than 0 makes each probe fail with that errno, after the claims. `enables`:
    it calls pci_enable_device. `bus_master`: it calls pci_set_master (default: when it claims
    something). `msi` and `vectors` are what it asks for. `override_only`: its table counts for
    functions with a `driver_override` only (vfio-pci). `loaded`: it is there from the start. `uio`: it
    registers `/dev/uioN` for each of its functions.
    """

    __slots__ = (
        "_claim_name", "builtin", "bus_master", "claims", "dma_mask_bits", "dynamic_ids", "enables",
        "exclusive", "ids", "loaded", "module", "msi", "name", "override_only", "probe_error", "uio", "users",
        "vectors",
    )  # fmt: skip

    def __init__(  # noqa: PLR0913 - a record of independent facts
        self,
        name: str,
        ids: Sequence[PciId] = (),
        *,
        claims: Literal["all"] | Sequence[int] = "all",
        exclusive: bool = False,
        claim_name: str = "",
        module: str = "",
        builtin: bool = False,
        probe_error: int = 0,
        msi: Literal["", "msi", "msix"] = "",
        vectors: int = 1,
        enables: bool = True,
        bus_master: bool | None = None,
        dma_mask_bits: int | None = None,
        override_only: bool = False,
        loaded: bool = True,
        uio: bool = False,
    ) -> None:
        self.name = name
        self.ids = tuple(ids)
        self.dynamic_ids: list[PciId] = []
        self.claims: Literal["all"] | tuple[int, ...] = "all" if claims == "all" else tuple(claims)
        self.exclusive = exclusive
        self._claim_name = claim_name
        self.module = module
        self.builtin = builtin
        self.probe_error = probe_error
        self.msi = msi
        self.vectors = vectors
        self.enables = enables
        self.bus_master = bool(self.claims) if bus_master is None else bus_master
        self.dma_mask_bits = dma_mask_bits
        self.override_only = override_only
        self.loaded = loaded
        self.uio = uio
        self.users = Users()

    def __repr__(self) -> str:
        return f"<PciDriver {self.name}>"

    @property
    def claim_name(self) -> str:
        """Name of its claims in the resource trees; the driver's own by default."""
        return self._claim_name or self.name

    def claimed_bars(self) -> Sequence[int]:
        """Indexes of the BARs that its probe requests, in order; those that do not exist are skipped."""
        return range(6) if self.claims == "all" else self.claims

    def match(self, device: "PciDevice") -> bool:
        """`pci_match_device`: an override decides alone, then dynamic ids count, then the table."""
        override = device.driver_override
        if override is not None:
            return override == self.name
        return self.match_numbers(device.numbers)

    def match_numbers(self, numbers: PciId) -> bool:
        """The same for a function without an override, given as its numbers."""
        if any(entry.matches(numbers) for entry in self.dynamic_ids):
            return True
        return not self.override_only and any(entry.matches(numbers) for entry in self.ids)
