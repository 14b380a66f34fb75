"""From what a caller gives (bytes, contents, files) to what memory is made of."""

from typing import TYPE_CHECKING

from fakedev.model.backing import AnonymousBacking, Backing
from fakedev.model.contents import ZERO, Content, RawBytes
from fakedev.model.errors import MemoryLayoutError
from fakedev.model.hostfile import HostFile

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


def byte_view(data: "ReadableBuffer") -> memoryview:
    """Any buffer as a flat view of bytes; one with steps in it is copied."""
    view = memoryview(data)
    if view.format == "B" and view.ndim == 1 and view.c_contiguous:
        return view
    return view.cast("B") if view.c_contiguous else memoryview(view.tobytes())


def as_content(content: Content | bytes) -> Content:
    """Return a content; plain bytes become RawBytes."""
    return content if isinstance(content, Content) else RawBytes(bytes(content))


def check_fits(start: int, size: int, content: Content | bytes) -> None:
    """Raise MemoryLayoutError when there are more bytes than the range has."""
    content = as_content(content)
    if isinstance(content, RawBytes) and len(content.data) > size:
        raise MemoryLayoutError(
            f"{len(content.data)} bytes do not fit into the {size} bytes at {start:#x}"
        )


def anonymous(start: int, size: int, content: Content | bytes) -> AnonymousBacking:
    """Return new memory with a content. Raw bytes are stored into zeros at once."""
    content = as_content(content)
    check_fits(start, size, content)
    if not isinstance(content, RawBytes):
        return AnonymousBacking(start, start + size, content)
    backing = AnonymousBacking(start, start + size, ZERO, described=content)
    backing.store(start, memoryview(content.data))
    return backing


def file_patches(
    file: HostFile, address: int, offset: int, size: int
) -> list[tuple[int, int, Backing]]:
    """Return the data of a file and zeros for its holes, placed from `address` on."""
    mapped = file.backing(address, offset=offset, size=size, shared=False)
    empty = AnonymousBacking(address, address + size, ZERO)
    patches: list[tuple[int, int, Backing]] = []
    at, shift = address, address - offset
    for low, high in file.extents(offset, size):
        if at < low + shift:
            patches.append((at, low + shift, empty))
        patches.append((low + shift, high + shift, mapped))
        at = high + shift
    if at < address + size:
        patches.append((at, address + size, empty))
    return patches
