"""A ledger on disk while a search adds to it, sample by sample."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout

from neuroprior.files import appearing_whole
from neuroprior.robustness.ledger import Ledger, parts_of
from neuroprior.types import AttackRecord, InputError


class LedgerFile:
    """A ledger on disk while it grows: parts beside it, each whole; one file once it is finished.

    `header`: what made it, kept in the file; the same file is only ever continued with the same header. Lists of
    numbers in it may differ by 0.01. It is locked until it is closed, or the process ends. Raises `InputError` naming
    what differs, or where somebody else is at work on it.
    """

    def __init__(self, path: str | Path, header: dict[str, object]) -> None:
        self.path, self.header = Path(path), header
        self.parts = parts_of(self.path)
        if not self.path.parent.is_dir():
            raise InputError(f"{self.path}: no folder {self.path.parent}; make it first")
        self._lock = FileLock(self.path.with_name(f".{self.path.name}.lock"), timeout=0)
        try:
            self._lock.acquire()
        except Timeout:
            raise InputError(f"{self.path}: another search is at work on it; wait, or choose another file") from None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let others work on it."""
        self._lock.release()

    def _open(self) -> None:
        self._tables: list[pa.Table] = []
        known: set[str] = set()
        for file in (self.path, *sorted(self.parts.glob("*.parquet"))):
            if file.exists():
                table = self._read(file)
                # Killed while finishing, the parts may be there beside the whole.
                twice = pc.is_in(table["sample"], pa.array(sorted(known), type=pa.string()))
                self._tables.append(table.filter(pc.invert(twice)))
                known.update(table["sample"].to_pylist())

    @property
    def ledger(self) -> Ledger:
        """All rows so far."""
        if not self._tables:
            return Ledger.of_records([])
        return Ledger(pa.concat_tables(self._tables, promote_options="default"))

    def searched(self) -> dict[str, str]:
        """The samples that are done, with the digest of each one's image."""
        table = self.ledger.table
        return dict(zip(table["sample"].to_pylist(), table["image"].to_pylist(), strict=True))

    def add(self, records: Sequence[AttackRecord]) -> None:
        """Write the rows of samples that are done; they are there whole, or not at all."""
        self.parts.mkdir(exist_ok=True)
        table = Ledger.of_records(records).table.replace_schema_metadata(self._metadata())
        number = 1 + max((int(file.stem) for file in self.parts.glob("*.parquet")), default=0)
        with appearing_whole(self.parts / f"{number:06d}.parquet") as temporary:
            pq.write_table(table, temporary)
        self._tables.append(table.replace_schema_metadata())

    def finish(self) -> Ledger:
        """Put the parts into one file."""
        ledger = self.ledger
        with appearing_whole(self.path) as temporary:
            pq.write_table(ledger.table.replace_schema_metadata(self._metadata()), temporary)
        for file in self.parts.glob("*.parquet"):
            file.unlink()
        if self.parts.exists():
            self.parts.rmdir()
        return ledger

    def _metadata(self) -> dict[bytes, bytes]:
        return {b"neuroprior": json.dumps(self.header).encode()}

    def _read(self, file: Path) -> pa.Table:
        try:
            table = pq.read_table(file)
        except (OSError, pa.ArrowInvalid) as error:
            raise InputError(
                f"{file}: damaged ({str(error).splitlines()[0][:80]}); remove it, it is made again"
            ) from None
        written = json.loads((table.schema.metadata or {}).get(b"neuroprior", b"{}"))
        asked = json.loads(self._metadata()[b"neuroprior"])
        for name in dict.fromkeys((*asked, *written)):
            if not _same(written.get(name), asked.get(name)):
                then, now = (f"{value!r}"[:60] for value in (written.get(name), asked.get(name)))
                raise InputError(
                    f"{file}: was made with {name} {then}, now it is {now}; choose another file, or ask as before"
                )
        return table.replace_schema_metadata()


def _same(one: object, other: object) -> bool:
    if isinstance(one, list) and isinstance(other, list) and all(isinstance(x, float) for x in (*one, *other)):
        return len(one) == len(other) and bool(np.allclose(one, other, rtol=0.0, atol=0.01, equal_nan=True))
    return one == other
