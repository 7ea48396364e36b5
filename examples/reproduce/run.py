"""A run: its folder, its cached cells and models, its progress."""

import csv
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import time

import keras
import numpy as np
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from training import digest, plan, train, write_json

from keras_probcert.version import __version__


class Run:
    """What the tables share.

    Args:
        preset: a `Preset`.
        name: of the preset.
        folder: where all is written, a path.
        datasets: names, of those of the preset.
        seed: an int.
    """

    def __init__(self, preset, name, folder, datasets, seed):
        self.preset, self.name, self.seed = preset, name, seed
        self.folder = pathlib.Path(folder)
        self.datasets = datasets
        self._last = None  # The last configuration and its model.
        self._seconds = {}  # Of each cell of the present table.
        self.one = preset.one if preset.one in datasets else datasets[0]
        (self.folder / "cells").mkdir(parents=True, exist_ok=True)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )

    def size(self, dataset):
        return self.preset.sizes[dataset]

    def count(self, dataset, times):
        """`times` the images where one costs much, at most all."""
        size = self.size(dataset)
        return min(size.test, times * size.few)

    def plan(self, method, dataset, vicinity, size=None, **kwargs):
        size = size or self.size(dataset)
        return plan(method, dataset, size, vicinity, self.seed, **kwargs)

    def _train(self, config):
        label = f"  training {config['method']} on {config['dataset']}"
        bar = self.progress.add_task(label, total=None)

        def report(epoch, epochs):
            self.progress.update(bar, completed=epoch, total=epochs)

        try:
            return train(config, self.folder / "models", report)[0]
        finally:
            self.progress.remove_task(bar)

    def model(self, config):
        """The trained base model; with "at", as it was at a point."""
        config = dict(config)
        point = config.pop("at", None)
        if point is not None:
            self.model(config)
            file = self.folder / "models" / f"{digest(config)}-{point}.keras"
            return keras.saving.load_model(file)
        if self._last is None or self._last[0] != config:
            self._last = config, self._train(config)
        return self._last[1]

    def record(self, config):
        """The seconds and the history of a training."""
        file = self.folder / "models" / f"{digest(config)}.json"
        if not file.exists():
            self.model(config)
        return json.loads(file.read_text())

    def cell(self, what, compute):
        """What `compute()` returned under the configuration `what`, the first time."""
        file = self.folder / "cells" / f"{digest(what)}.json"
        if not file.exists():
            start = time.perf_counter()
            found = compute()
            seconds = time.perf_counter() - start
            write_json(file, {"what": what, "seconds": seconds, "found": found})
        cell = json.loads(file.read_text())
        self._seconds[file] = cell["seconds"]
        return cell["found"]

    def write(self, name, table):
        """Writes a table as JSON and CSV, with the seconds that its cells took."""
        seconds = sum(self._seconds.values())
        self._seconds.clear()
        whole = {"name": name, "seconds": seconds, **table}
        write_json(self.folder / f"{name}.json", whole)
        rows = table["rows"] or [{}]
        columns = list(dict.fromkeys(key for row in rows for key in row))
        columns = [column for column in columns if column != "outcomes"]
        with open(self.folder / f"{name}.csv", "w", newline="") as file:
            writer = csv.DictWriter(file, columns, extrasaction="ignore")
            writer.writeheader()
            writer.writerows(rows)
        self._write_seconds()

    def _write_seconds(self):
        """Adds to `run.json` the seconds of all cells, which tables share."""
        cells = (self.folder / "cells").glob("*.json")
        total = sum(json.loads(cell.read_text())["seconds"] for cell in cells)
        file = self.folder / "run.json"
        write_json(file, {**json.loads(file.read_text()), "seconds": total})

    def describe(self, arguments):
        """Writes what the run is: its command, preset, seed, versions, hardware."""
        backend = keras.backend.backend()
        file = self.folder / "run.json"
        before = json.loads(file.read_text()) if file.exists() else {}
        versions = before.get("versions", {})
        if before and (before["preset"] != self.name or backend not in versions):
            raise ValueError(
                f"`output` must be a new folder, or one of preset {self.name} on "
                f"{backend}. Received: {self.folder}, of preset {before['preset']} and "
                f"{versions}"
            )
        command = f"python examples/reproduce {arguments}"
        version = " ".join([__version__, *_commit()])
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        write_json(
            file,
            {
                "preset": self.name,
                "seed": self.seed,
                "started": before.get("started", now),
                # Several calls may have contributed, of several versions.
                "command": _joined("; ", before.get("command"), command),
                "versions": {
                    "keras_probcert": _joined(
                        " and ", versions.get("keras_probcert"), version
                    ),
                    "keras": keras.__version__,
                    backend: importlib.metadata.version(backend),
                    "numpy": np.__version__,
                    "python": platform.python_version(),
                },
                "hardware": {
                    "processor": _processor(),
                    "cores": os.cpu_count(),
                    "memory_gib": round(memory / 2**30),
                    "accelerator": _accelerator(),
                },
            },
        )


def _joined(between, earlier, now):
    """What was there earlier and `now`, each once."""
    earlier = earlier.split(between) if earlier else []
    return between.join(dict.fromkeys([*earlier, now]))


def _commit():
    """The commit of this checkout, if it is one."""
    command = ["git", "describe", "--always", "--dirty"]
    folder = pathlib.Path(__file__).parent
    try:
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except OSError:
        return []
    return [f"({text})"] if (text := found.stdout.strip()) else []


def _processor():
    try:
        with open("/proc/cpuinfo") as file:
            names = [line for line in file if line.startswith("model name")]
        return names[0].split(":")[1].strip()
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def _accelerator():
    devices = keras.distribution.list_devices()
    others = sorted({d.split(":")[0] for d in devices if not d.startswith("cpu")})
    return ", ".join(others) or "none"
