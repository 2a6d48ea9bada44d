"""A statement's parameters, numbered as its text is put together."""

from typing import Any


class Arguments:
    """The values of one statement; each `add` gives the place holder that stands for its value."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any) -> str:
        """The value's place holder, such as $3."""
        self.values.append(value)
        return f"${len(self.values)}"
