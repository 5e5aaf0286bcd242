"""Messages between processes that write together: files in a folder that all of them see."""

from __future__ import annotations

import json
import os
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gpu_patch.checks import Message
from gpu_patch.predict.outputs.options import Shard
from gpu_patch.predict.outputs.removal import discard, sweep

_PAUSE = 0.05


class Ranks:
    """The processes of one run.

    Parameters
    ----------
    folder : Path
        Theirs alone. What is in it from an earlier run is never taken for this one's.
    shard : Shard
        Which of them this is.
    timeout : float
        Seconds without any sign of the others after which waiting is an error.
    """

    def __init__(self, folder: Path, shard: Shard, timeout: float) -> None:
        self._folder, self._timeout = folder, timeout
        self._rank, self._world_size = shard.rank, shard.world_size

    @property
    def together(self) -> bool:
        """Whether there are several."""
        return self._world_size > 1

    def share(self, make: Callable[[], Any]) -> Any:
        """Call `make` on rank 0, and return on every rank what it returns, or raise its error.

        All ranks are there when it returns.
        """
        if not self.together:
            found = make()  # before the folder is removed: until then it may be another run's
            discard(self._folder)
            return found
        return self._announce(make) if self._rank == 0 else self._receive()

    def mark(self, name: str) -> None:
        """Make a file of this name, which every rank sees."""
        if self.together:
            (self._folder / name).touch()

    def marked(self, name: str) -> bool:
        """Tell whether a rank has made the file."""
        return (self._folder / name).exists()

    def leave(self) -> None:
        """Wait for all ranks at the end; rank 0 removes the folder."""
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
            discard(self._folder)
            sweep(self._folder)

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
                    Message(
                        f"rank {self._rank} of {self._world_size} gave up after "
                        f"{self._timeout:g} s without a sign of the others: ",
                        missing(),
                    )
                )

    def _announce(self, make: Callable[[], Any]) -> Any:
        # the call is new each time, and so is each rank's answer, which rank 0 repeats: files of
        # an earlier run, or of another one that holds the results, cannot be taken for this run's
        call = uuid.uuid4().hex
        message: dict[str, Any] = {"call": call, "seen": {}}
        error = None
        try:
            message["found"] = make()
            # this run holds the results now: what is in the folder is left over
            for old in self._folder.iterdir() if self._folder.is_dir() else ():
                discard(old)
        except Exception as raised:
            error = raised
            message["error"] = f"{type(error).__name__}: {error}"
        seen = message["seen"]
        self._send(message)

        def all_seen() -> bool:
            for rank in range(1, self._world_size):
                answer = self._read(f"{rank}.json")
                if answer.get("call") == call and answer["token"] != seen.get(str(rank)):
                    seen[str(rank)] = answer["token"]
                    self._send(message)
            return len(seen) == self._world_size - 1

        def missing() -> str:
            absent = [r for r in range(1, self._world_size) if str(r) not in seen]
            return f"the ranks {absent} have not begun"

        try:
            self.until(all_seen, lambda: len(seen), missing)
        except TimeoutError:
            if error is None:
                raise
        if error is not None:
            raise error
        return message["found"]

    def _send(self, message: dict[str, Any]) -> None:
        if not self._folder.is_dir():
            discard(self._folder)
        while True:
            self._folder.mkdir(parents=True, exist_ok=True)
            try:
                return self._write("0.json", message)
            except FileNotFoundError:
                pass  # another run, which held the results, has removed the folder at its end

    def _receive(self) -> Any:
        token = uuid.uuid4().hex
        message: dict[str, Any] = {}
        answered: str | None = None

        def received() -> bool:
            nonlocal message, answered
            message = self._read("0.json")
            if message.get("seen", {}).get(str(self._rank)) == token:
                return True
            call = message.get("call")
            if call and call != answered:
                try:
                    self._write(f"{self._rank}.json", {"token": token, "call": call})
                    answered = call
                except (FileNotFoundError, NotADirectoryError):
                    pass  # rank 0 has emptied the folder, and sends its call again
            return False

        self.until(received, lambda: None, lambda: "rank 0 has not begun")
        if "error" in message:
            raise RuntimeError(f"rank 0 could not begin: {message['error']}")
        return message["found"]

    def _write(self, name: str, content: Any) -> None:
        hidden = self._folder / f".{name}.{uuid.uuid4().hex}"
        hidden.write_text(json.dumps(content))
        os.replace(hidden, self._folder / name)

    def _read(self, name: str) -> dict[str, Any]:
        """Return what a rank wrote, nothing where it has not."""
        try:
            found = json.loads((self._folder / name).read_text())
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}
