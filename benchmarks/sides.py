"""Two sides of a comparison, each in a process of its own, that never run at once."""

import json
import subprocess
import sys
import time


def serve(tasks):
    """Runs the task that each line on stdin names, and answers with figures."""
    for line in sys.stdin:
        start = time.perf_counter()
        result = tasks[line.strip()]()
        answer = {"seconds": time.perf_counter() - start, "result": float(result)}
        print("ANSWER" + json.dumps(answer), flush=True)


class Side:
    """One side's process."""

    def __init__(self, script, python, side, folder):
        self._process = subprocess.Popen(
            [python, script, "--side", side, str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def run(self, task):
        """Seconds and result of one run."""
        self._process.stdin.write(task + "\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ANSWER"):
                answer = json.loads(line[len("ANSWER") :])
                return answer["seconds"], answer["result"]
        raise RuntimeError(f"the process for {task} ended")

    def end(self):
        self._process.stdin.close()
        self._process.wait()


def save_network(model, path):
    """Writes what `torch_twin.Twin` reads."""
    import keras
    import numpy as np

    # A Sequential model does not write down its graph.
    model = keras.Model(model.inputs, model.outputs)
    weights = {
        f"{layer.name}/{index}": weight
        for layer in model.layers
        for index, weight in enumerate(layer.get_weights())
    }
    np.savez(path, architecture=model.to_json(), **weights)
