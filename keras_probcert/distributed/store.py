"""The folder that certificates are written to: what was written stays written.

`run.json` says what the certificates are of. `certificates/` holds Parquet files,
each written whole or not at all; the rows in them are done and are not done again.
"""

import datetime
import json
import os
import pathlib
import time

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from keras_probcert.distributed.rows import digests
from keras_probcert.version import __version__

SECONDS_A_FILE = 30


class Store:
    """Writes certificates, and knows which rows have theirs.

    Args:
        folder: a path; made where it does not exist.
        run: what `fingerprint` gives; a `seed` of `None` takes that of the run in the
            folder, and for a new one is drawn.
        rows_a_file: the most rows of a file.

    Raises:
        ValueError: if the folder holds the certificates of a different run, or
            something else.
        OSError: if it cannot be written to.
        RuntimeError: if another process is writing to it.
    """

    def __init__(self, folder, run, rows_a_file):
        self.folder = pathlib.Path(folder)
        self._certificates = self.folder / "certificates"
        self._rows_a_file = rows_a_file
        self._waiting, self._count, self._since = [], 0, time.monotonic()
        known = {".lock", "certificates", "run.json", ".run.json"}
        if self.folder.is_dir():
            others = {path.name for path in self.folder.iterdir()} - known
            if others:
                raise ValueError(
                    "`output` must be a new or empty folder, or that of the same run. "
                    f"Received: output={self.folder}, which holds {sorted(others)}"
                )
        self._certificates.mkdir(parents=True, exist_ok=True)
        self._lock = self._locked()
        try:
            # Of a process that was stopped while it wrote.
            (self.folder / ".run.json").unlink(missing_ok=True)
            for left in self._certificates.glob(".part-*"):
                left.unlink()
            self.run = self._agreed(run)
            self.done = self._written()
        except BaseException:
            self._lock.close()
            raise
        numbers = [int(p.stem.split("-")[1]) for p in self._files()]
        self._next = max(numbers, default=-1) + 1

    def __enter__(self):
        return self

    def __exit__(self, kind, *exception):
        try:
            self.flush()
        except OSError:
            # Where that is what ended the run, it has been said.
            if kind is None:
                raise
        finally:
            self._lock.close()

    def _locked(self):
        lock = open(self.folder / ".lock", "w")
        try:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            raise RuntimeError(
                f"Another process is writing to `output`, {self.folder}"
            ) from None
        except (ImportError, OSError):
            pass  # Not every system has locks.
        return lock

    def _agreed(self, run):
        file = self.folder / "run.json"
        if not self._files():
            # Of a run that certified nothing, nothing need be kept.
            if run["seed"] is None:
                run = {
                    **run,
                    "seed": int(np.random.SeedSequence().generate_state(1)[0]),
                }
            now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            found = {**run, "started": now, "library_version": __version__}
            self._replace(
                file, lambda path: path.write_text(json.dumps(found, indent=1))
            )
            return found
        if not file.exists():
            raise ValueError(
                "`output` must be a new or empty folder, or that of the same run. "
                f"Received: output={self.folder}, with certificates and no run.json"
            )
        found = json.loads(file.read_text())
        for name in run:
            if run[name] != found.get(name) and (name, run[name]) != ("seed", None):
                raise ValueError(
                    "`output` must be a new or empty folder, or that of the same run. "
                    f"Received: output={self.folder}, which holds certificates of "
                    f"another {name}: {found.get(name)}, not {run[name]}"
                )
        return found

    def _files(self):
        return sorted(self._certificates.glob("part-*.parquet"))

    def _written(self):
        """From each row that is done to its input's digest and its label."""
        done, rows = {}, 0
        for file in self._files():
            table = parquet.read_table(file, columns=["id", "input_sha256", "y"])
            ids, *known = (table.column(i).to_pylist() for i in range(3))
            done |= dict(zip(ids, zip(*known, strict=True), strict=True))
            rows += len(ids)
        if len(done) < rows:
            raise ValueError(
                "`output` must hold each row once. Received: "
                f"output={self.folder}, with {rows - len(done)} rows twice"
            )
        return done

    def left(self, rows):
        """Those of `rows` that have no certificate yet.

        Raises:
            ValueError: if one has a certificate that is of another input or label.
        """
        known = [self.done.get(int(i)) for i in rows.id]
        if any(known):
            given = zip(digests(rows.x), rows.y.tolist(), strict=True)
            for i, old, new in zip(rows.id, known, given, strict=True):
                if old not in (None, new):
                    what = "input" if old[0] != new[0] else "label (or none)"
                    raise ValueError(
                        "`data` must be that of the run in `output`. Received: another "
                        f"{what} in row {i}"
                    )
        return rows[np.array([k is None for k in known], bool)]

    def add(self, rows, results):
        """Takes the certificates of `rows`, and writes them when enough are there."""
        if len(rows):
            self._waiting.append(_table(rows, results))
            self._count += len(rows)
        late = time.monotonic() - self._since > SECONDS_A_FILE
        if self._count >= self._rows_a_file or late:
            self.flush()

    def flush(self):
        """Writes what is not written yet."""
        if not self._waiting:
            return
        table = pa.concat_tables(self._waiting).sort_by("id")
        file = self._certificates / f"part-{self._next:06d}.parquet"
        self._replace(file, lambda path: parquet.write_table(table, path))
        self._next += 1
        self._waiting, self._count, self._since = [], 0, time.monotonic()

    def _replace(self, file, write):
        """Writes all of a file or nothing of it."""
        temporary = file.with_name(f".{file.name}")
        try:
            write(temporary)
            with open(temporary, "r+b") as written:
                os.fsync(written.fileno())
            os.replace(temporary, file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(
                error.errno,
                f"`output` cannot be written to ({error.strerror or error}); what "
                "was written before is whole, and the same call goes on from there",
                str(file),
            ) from error


def _table(rows, results):
    columns = {"id": rows.id, "input_sha256": digests(rows.x)}
    columns["seed"] = _lists(rows.seed, pa.int32())
    columns["y"] = rows.y.astype(np.int64)
    columns |= {
        name: _lists(value, pa.int32()) if value.ndim == 2 else value
        for name, value in results.items()
    }
    columns["library_version"] = pa.array([__version__] * len(rows)).dictionary_encode()
    return pa.table(columns)


def _lists(values, dtype):
    flat = pa.array(values.reshape(-1), dtype)
    return pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def load_certificates(output, columns=None):
    """The certificates in a folder that `certify_dataset` wrote, in the data's order.

    Args:
        output: the folder.
        columns: a list of the names of those to read, by default all but the inputs'
            hashes and the library's versions, which are left out in any case.

    Returns:
        A dict of arrays: what `CertifiedPredictor.predict` returns, and

        - `id`: int64 `(rows,)`, the place of the row in the data;
        - `seed`: int32 `(rows, 2)`, with which `predict(x[i:i+1], seed=…)` repeats
          the certificate of row i alone (of a refused row it raises);
        - `y`: int64 `(rows,)`, if the data had labels; −1 in rows without.

    Raises:
        ValueError: if the folder holds no certificates, or `columns` names something
            else.

    Example:

    >>> import keras, numpy as np, tempfile
    >>> base = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    >>> certified = CertifiedPredictor(base, LInf(0.1), kappa=0.1)
    >>> x = np.random.rand(5, 4).astype("float32")
    >>> with tempfile.TemporaryDirectory() as output:
    ...     _ = certify_dataset(certified, x, output, seed=7, verbose=0)
    ...     found = load_certificates(output)
    >>> found["id"].tolist(), found["votes"].shape
    ([0, 1, 2, 3, 4], (5, 3))
    """
    files = sorted((pathlib.Path(output) / "certificates").glob("part-*.parquet"))
    if not files:
        raise ValueError(
            f"`output` must be a folder with certificates. Received: output={output}"
        )

    known = dict.fromkeys(n for file in files for n in parquet.read_schema(file).names)
    if columns is None:
        columns = list(known)
    elif isinstance(columns, str) or not {*columns, "y"} <= {*known, "y"}:
        raise ValueError(
            f"`columns` must be a list of names among {list(known)}. "
            f"Received: columns={columns!r}"
        )

    def read(file):
        names = parquet.read_schema(file).names
        wanted = [n for n in names if n in columns or n == "id"]
        return parquet.read_table(file, columns=wanted)

    tables = [read(file) for file in files]
    table = pa.concat_tables(tables, promote_options="default").sort_by("id")
    table = table.select([n for n in table.column_names if n in columns])
    found = {}
    for name in table.column_names:
        if name in ("input_sha256", "library_version"):
            continue
        column = table.column(name).combine_chunks()
        if pa.types.is_fixed_size_list(column.type):
            values = column.flatten().to_numpy()
            found[name] = values.reshape(len(column), column.type.list_size)
        else:
            found[name] = column.to_numpy(zero_copy_only=False)
    if "y" in found and (found["y"] < 0).all():
        del found["y"]
    return found
