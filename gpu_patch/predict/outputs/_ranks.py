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
        # a rank gives a number of its own, and believes what repeats it: files of an earlier run
        # cannot. It repeats that of rank 0, which so tells its like from earlier ones.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True, exist_ok=True)
        run, found, error = uuid.uuid4().hex, None, None
        try:
            found = make()
        except Exception as raised:
            error = raised
        said: dict[str, Any] = {"run": run, "seen": {}, "found": found}
        if error is not None:
            said["error"] = f"{type(error).__name__}: {error}"
        self._write("0.json", said)

        def all_seen() -> bool:
            for rank in range(1, self._world_size):
                heard = self._read(f"{rank}.json")
                known = said["seen"].get(str(rank))
                if heard and heard["run"] == run and heard["token"] != known:
                    said["seen"][str(rank)] = heard["token"]
                    self._write("0.json", said)
            return len(said["seen"]) == self._world_size - 1

        def missing() -> str:
            absent = [r for r in range(1, self._world_size) if str(r) not in said["seen"]]
            return f"the ranks {absent} have not begun"

        self.until(all_seen, lambda: len(said["seen"]), missing)
        if error is not None:
            raise error
        return found

    def _listen(self) -> Any:
        mine = {"token": uuid.uuid4().hex, "run": ""}
        name = f"{self._rank}.json"
        said: Any = None

        def answered() -> bool:
            nonlocal said
            said = self._read("0.json")
            if said and said["seen"].get(str(self._rank)) == mine["token"]:
                return True
            mine["run"] = said["run"] if said else ""
            # rank 0 may have emptied the folder since
            if said and self._read(name) != mine:
                self._write(name, mine)
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
            # rank 0 emptied the folder meanwhile; it will be written again
            if self._rank == 0:
                raise

    def _read(self, name: str) -> Any:
        try:
            return json.loads((self._folder / name).read_text())
        except FileNotFoundError:
            return None
