"""Views of C structures: a class a structure, a property a field. Who holds a view cannot change what it shows."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from operator import attrgetter
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Never, Self, TypeVar

from dwcvmm.core import namedfields
from dwcvmm.core._binding import CData, ffi


class View:
    """A structure somewhere in C. `owner` is kept alive as long as the view: the memory is its."""

    __slots__ = ("_c", "_owner")

    def __init__(self, c: CData, owner: object) -> None:
        self._c, self._owner = c, owner


T = TypeVar("T")


class Value(property, Generic[T]):
    """Something in a C structure, by its path there. Assigning raises AttributeError."""

    if TYPE_CHECKING:

        def __get__(self, view: Any, kind: type | None = None, /) -> T: ...  # type: ignore[override]

        def __set__(self, view: Any, value: Never, /) -> None: ...


class Number(Value[int]):
    def __init__(self, path: str) -> None:
        super().__init__(attrgetter(f"_c.{path}"))


class Flag(Value[bool]):
    """A number that is true or false."""

    def __init__(self, path: str) -> None:
        read = attrgetter(f"_c.{path}")
        super().__init__(lambda view: bool(read(view)))


class Numbers(Value[tuple[int, ...]]):
    """An array of numbers, as they are now."""

    def __init__(self, path: str) -> None:
        read = attrgetter(f"_c.{path}")
        super().__init__(lambda view: tuple(read(view)))


class Struct:
    """A structure that Python may have for itself: then it is zeros at first, and its fields can be set. Where it is a
    part of the core's memory (`within`), setting a field raises AttributeError.
    """

    __slots__ = ("_c", "_owner", "_writable")
    ctype: ClassVar[str]  # of a pointer to it

    def __init__(self, **fields: int) -> None:
        self._c: CData = ffi.new(self.ctype)
        self._owner: object = self._c
        self._writable = True
        for name, value in fields.items():
            setattr(self, name, value)

    @classmethod
    def within(cls, c: CData, owner: object, writable: bool = False) -> Self:
        """A view of one that is part of `owner`'s memory."""
        made = cls.__new__(cls)
        made._c, made._owner, made._writable = c, owner, writable
        return made

    @property
    def pointer(self) -> CData:
        """For calls of C."""
        return self._c if ffi.typeof(self._c).kind == "pointer" else ffi.addressof(self._c)

    def copy(self) -> Self:
        """The content as it is now, in memory of its own."""
        made = type(self)()
        ffi.memmove(made._c, self.pointer, ffi.sizeof(ffi.typeof(self.ctype).item))
        return made

    def numbers(self) -> dict[str, int]:
        """All fields by name in the order of <linux/kvm.h>, those of structures in it as "outer.inner"."""
        return dict(_numbers(self._c))

    def set_number(self, name: str, value: int) -> None:
        """Set a field of a structure of one's own by its name, of one in it by "outer.inner". Raises AttributeError."""
        outer, _, inner = name.partition(".")
        setattr(getattr(self, outer) if inner else self, inner or outer, value)

    def number(self, name: str) -> int:
        """The value of a field by its name, as `set_number` has it."""
        value = attrgetter(name)(self)
        return int(value)

    def document(self, leave_out: Container[str] = ()) -> dict[str, Any]:
        """All fields by name, structures and arrays in it as documents and lists, without fields of these names."""
        return namedfields.dump(self._c, leave_out)

    def set_document(self, document: Mapping[str, Any], leave_out: Container[str] = ()) -> None:
        """Set all fields from what `document` has given. Raises ValueError for anything else."""
        self._check_writable("")
        namedfields.load(self._c, document, leave_out)

    def _set(self, name: str, value: int) -> None:
        self._check_writable(f".{name}")
        setattr(self._c, name, value)

    def _check_writable(self, what: str) -> None:
        if not self._writable:
            raise AttributeError(f"{type(self).__name__}{what} is a view of the core's memory: it cannot be set")


def _numbers(struct: CData) -> Iterator[tuple[str, int]]:
    kind = ffi.typeof(struct)
    for name, field in (kind.item if kind.kind == "pointer" else kind).fields:
        value = getattr(struct, name)
        if field.type.kind == "struct":
            yield from ((f"{name}.{inner}", number) for inner, number in _numbers(value))
        else:
            yield name, int(value)


class Field:
    """A number in a Struct, by the name of the attribute."""

    def __set_name__(self, kind: type, name: str) -> None:
        self._name = name

    def __get__(self, struct: Struct, kind: type | None = None) -> int:
        value: int = getattr(struct._c, self._name)
        return value

    def __set__(self, struct: Struct, value: int) -> None:
        struct._set(self._name, value)


S = TypeVar("S", bound=Struct)


class Part(Generic[S]):
    """A structure in a Struct, by the name of the attribute. It can be set where the whole can."""

    def __init__(self, kind: type[S]) -> None:
        self._kind = kind

    def __set_name__(self, kind: type, name: str) -> None:
        self._name = name

    def __get__(self, struct: Struct, kind: type | None = None) -> S:
        return self._kind.within(getattr(struct._c, self._name), struct, struct._writable)

    def __set__(self, struct: Struct, value: Never) -> None:
        raise AttributeError(f"{self._name}: set its fields")
