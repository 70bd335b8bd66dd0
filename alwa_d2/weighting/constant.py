"""Attributes that do not change."""

from typing import Any, Generic, TypeVar, overload

from .._show import show

T = TypeVar("T")


class Constant(Generic[T]):
    """An attribute that is set once, when its object is made; later changes are refused."""

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> "Constant[T]": ...

    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...

    def __get__(self, instance: Any, owner: type | None = None) -> "Constant[T] | T":
        if instance is None:
            return self
        try:
            return instance.__dict__[self._name]
        except KeyError:
            raise AttributeError(self._name) from None

    def __set__(self, instance: Any, value: T) -> None:
        if self._name in instance.__dict__:
            kind = type(instance).__name__
            raise AttributeError(
                f"{kind}.{self._name} cannot be changed: what was observed belongs to "
                f"{show(instance.__dict__[self._name])}. Build a new {kind} instead."
            )
        instance.__dict__[self._name] = value
