"""TorchAttacks' side: runs jobs on twins, under PyTorch, in one process.

    python torch_side.py FOLDER

FOLDER holds `jobs.json`, a list of jobs; `network.npz`, what `Twin` reads; and
`images.npz`, with `x` and `y`. For each job `results.npz` gets `KEY`, the adversarial
examples, and `KEY/logits`, those of the twin there.
"""

import json
import pathlib
import sys

import numpy as np
import torch
import torchattacks
from torch_twin import Twin, images_first, images_last


def run(attack, x, y, seed):
    """The attack, with all random numbers it may draw seeded."""
    torch.manual_seed(seed)
    np.random.seed(seed)
    # APGD, APGDT, FAB and Square seed PyTorch themselves.
    attack.seed = seed
    return attack(x, y)


def main(folder):
    # Threads that wait for each other cost more than they bring to small batches.
    torch.set_num_threads(1)
    with np.load(folder / "images.npz") as file:
        images, labels = file["x"], torch.tensor(file["y"], dtype=torch.int64)
    results, twins = {}, {}
    for job in json.loads((folder / "jobs.json").read_text()):
        dtype = getattr(torch, job["dtype"])
        if dtype not in twins:
            twins[dtype] = Twin(folder / "network.npz", dtype)
        twin, x = twins[dtype], images_first(images[: job["rows"]], dtype)
        y = labels[: job["rows"]]
        if job["attack"] is not None:
            attack = getattr(torchattacks, job["attack"])(twin, **job["arguments"])
            seed = 10_000 * job["seed"]
            if job["one_by_one"]:
                rows = [slice(i, i + 1) for i in range(len(x))]
                x = torch.cat([run(attack, x[r], y[r], seed + r.start) for r in rows])
            else:
                x = run(attack, x, y, seed)
            x = x.detach()
        with torch.no_grad():
            results[f"{job['key']}/logits"] = twin(x).numpy()
        results[job["key"]] = images_last(x)
    np.savez(folder / "results.npz", **results)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
