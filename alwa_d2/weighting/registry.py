"""The names of loss weighters, as configs give them."""

from collections.abc import Iterator


class Registry:
    """Name -> class. Used as the registries of Detectron2 are, whose package it does not need."""

    def __init__(self):
        self._obj_map: dict[str, type] = {}

    def register(self, cls: type | None = None):
        """
        Registers a class under its name: `@REGISTRY.register()` above it, or `register(cls)`.

        Raises:
            ValueError: another class has that name
        """
        if cls is None:
            return self._add
        return self._add(cls)

    def _add(self, cls: type) -> type:
        if cls.__name__ in self:
            raise ValueError(f"{cls.__name__}: expected a new name, it is registered already")
        self._obj_map[cls.__name__] = cls
        return cls

    def get(self, name: str) -> type:
        """
        Raises:
            KeyError: there is no such name; says which there are
        """
        if name not in self:
            raise KeyError(f"expected one of {', '.join(sorted(self._obj_map))}, got {name!r}")
        return self._obj_map[name]

    def __contains__(self, name: str) -> bool:
        return name in self._obj_map

    def __iter__(self) -> Iterator[tuple[str, type]]:
        return iter(list(self._obj_map.items()))

    def __len__(self) -> int:
        return len(self._obj_map)

    def __repr__(self) -> str:
        return f"Registry({', '.join(sorted(self._obj_map))})"


LOSS_WEIGHTER_REGISTRY = Registry()
