"""The one exception of the readers: why a file, or the rest of it, gives no text."""

from __future__ import annotations

from doctune.documents import Status


class Refused(Exception):  # noqa: N818  (not an error of ours: the name says what happened to the file)
    """A file, or the rest of it, gives no text: `status` and `reason` go into its row of the account."""

    def __init__(self, status: Status, reason: str) -> None:
        super().__init__(reason)
        self.status: Status = status
        self.reason = reason

    @property
    def may_try_another(self) -> bool:
        """Whether another library might still read the file."""
        return self.status == "damaged"


class Hostile(Refused):
    """The file tries something that no honest file does: no other library is given it."""

    @property
    def may_try_another(self) -> bool:
        """Never."""
        return False
