"""What processes that write together tell each other, through files in a folder that all see."""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

_PAUSE = 0.05


class Ranks:
    """The processes of one run.

    Parameters
    ----------
    folder : Path
        Theirs alone. What is in it from an earlier run is never taken for this one's.
    rank, world_size : int
        Number of this process, and how many there are.
    timeout : float
        Seconds without any sign of the others after which waiting is an error.
    """

    def __init__(self, folder: Path, rank: int, world_size: int, timeout: float) -> None:
        self._folder, self._rank, self._world_size = folder, rank, world_size
        self._timeout = timeout

    @property
    def together(self) -> bool:
        """Whether there are several."""
        return self._world_size > 1

    def share(self, make: Callable[[], Any]) -> Any:
        """Return on every rank what `make`, called on rank 0, returns there; its error as well.

        All ranks are there when it returns.
        """
        if not self.together:
            shutil.rmtree(self._folder, ignore_errors=True)
            return make()
        return self._tell(make) if self._rank == 0 else self._listen()

    def mark(self, name: str) -> None:
        """Leave a sign that every rank sees."""
        if self.together:
            (self._folder / name).touch()

    def marked(self, name: str) -> bool:
        """Tell whether a rank left the sign."""
        return (self._folder / name).exists()

    def leave(self) -> None:
        """Remove the folder when the last rank is here."""
        if not self.together:
            return
        self.mark(f"{self._rank}.left")
        if self._rank == 0:
            left = [f"{rank}.left" for rank in range(self._world_size)]
            self.until(
                lambda: all(map(self.marked, left)),
                lambda: sum(map(self.marked, left)),
                lambda: "not every rank has ended",
            )
            shutil.rmtree(self._folder)

    def until(
        self,
        reached: Callable[[], bool],
        signs: Callable[[], object],
        missing: Callable[[], str],
    ) -> None:
        """Wait for something.

        Parameters
        ----------
        reached : callable
            Tells whether it has come.
        signs : callable
            Its value changes as long as the others live.
        missing : callable
            Says what has not come, for the error.
        """
        seen, since = signs(), time.monotonic()
        while not reached():
            time.sleep(_PAUSE)
            now = signs()
            if now != seen:
                seen, since = now, time.monotonic()
            elif time.monotonic() - since > self._timeout:
                raise TimeoutError(
                    f"rank {self._rank} of {self._world_size} gave up after {self._timeout:g} s "
                    f"without a sign of the others: {missing()}"
                )

    def _tell(self, make: Callable[[], Any]) -> Any:
        # each rank gives itself a name that no process had before, and believes what repeats it:
        # files of an earlier run cannot
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in self._folder.iterdir():
            old.unlink(missing_ok=True)
        said: dict[str, Any] = {"seen": {}}
        error = None
        try:
            said["found"] = make()
        except Exception as raised:
            error = raised
            said["error"] = f"{type(error).__name__}: {error}"
        seen = said["seen"]

        def all_seen() -> bool:
            for rank in range(1, self._world_size):
                token = self._read(f"{rank}.json")
                if token and token != seen.get(str(rank)):
                    seen[str(rank)] = token
                    self._write("0.json", said)
            return len(seen) == self._world_size - 1

        def missing() -> str:
            absent = [r for r in range(1, self._world_size) if str(r) not in seen]
            return f"the ranks {absent} have not begun"

        self.until(all_seen, lambda: len(seen), missing)
        if error is not None:
            raise error
        return said["found"]

    def _listen(self) -> Any:
        token, name = uuid.uuid4().hex, f"{self._rank}.json"
        said: Any = None

        def answered() -> bool:
            nonlocal said
            said = self._read("0.json")
            if said and said["seen"].get(str(self._rank)) == token:
                return True
            # rank 0 may have emptied the folder since it was written
            if self._read(name) != token:
                self._write(name, token)
            return False

        self.until(answered, lambda: None, lambda: "rank 0 has not begun")
        if "error" in said:
            raise RuntimeError(f"rank 0 could not begin: {said['error']}")
        return said["found"]

    def _write(self, name: str, content: Any) -> None:
        hidden = self._folder / f".{name}.{uuid.uuid4().hex}"
        try:
            hidden.write_text(json.dumps(content))
            os.replace(hidden, self._folder / name)
        except FileNotFoundError:
            # rank 0 has not made the folder, or has emptied it meanwhile: it is tried again
            if self._rank == 0:
                raise

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._folder / name).read_text())
        except FileNotFoundError:
            return None
