"""The names of loss weighters, as configs give them."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar, overload

T = TypeVar("T", bound=type)


class Registry:
    """Name -> class. Used as the registries of Detectron2 are, whose package it does not need."""

    def __init__(self) -> None:
        self._obj_map: dict[str, Any] = {}

    @overload
    def register(self, cls: None = None) -> Callable[[T], T]: ...

    @overload
    def register(self, cls: T) -> T: ...

    def register(self, cls: Any = None) -> Any:
        """
        Registers a class under its name: `@REGISTRY.register()` above it, or `register(cls)`.

        Raises:
            ValueError: another class has that name
        """
        if cls is None:
            return self._add
        return self._add(cls)

    def _add(self, cls: T) -> T:
        if cls.__name__ in self:
            raise ValueError(f"{cls.__name__}: expected a new name, it is registered already")
        self._obj_map[cls.__name__] = cls
        return cls

    def get(self, name: str) -> Any:
        """
        Raises:
            KeyError: there is no such name; says which there are
        """
        if name not in self:
            raise KeyError(f"expected one of {', '.join(sorted(self._obj_map))}, got {name!r}")
        return self._obj_map[name]

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        return iter(list(self._obj_map.items()))

    def __len__(self) -> int:
        return len(self._obj_map)

    def __repr__(self) -> str:
        return f"Registry({', '.join(sorted(self._obj_map))})"


LOSS_WEIGHTER_REGISTRY = Registry()
