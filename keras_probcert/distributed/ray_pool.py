"""Workers on a Ray cluster: actors that may be lost at any time.

Ray could restart actors and repeat their tasks by itself. But a task would then wait
for a place in the cluster while other workers are free, and where a node has left for
good it would wait for ever. So a lost task goes back to the schedule, the next free
worker takes it, and a new worker starts where there is room for one.
"""

import time
import warnings

import keras

# Starts of workers that may fail in a row before their places are given up.
STARTS = 3
# Seconds that the others wait for a worker to start, and until it is said that none
# starts.
PATIENCE, SILENCE = 60, 300


class RayPool:
    """A pool of Ray actors.

    Args:
        make: a function without arguments that gives a `Worker`; Ray pickles it.
        size: the number of workers; `None` for as many as the cluster has room for.
        address: of the Ray cluster, as `ray.init` takes it; `None` joins one that runs
            here or starts one.
        resources: options of the actors, such as `{"num_cpus": 2, "num_gpus": 1}`.

    Raises:
        ImportError: if Ray is not installed.
    """

    def __init__(self, make, size, address=None, resources=None):
        try:
            import ray
        except ImportError as error:
            raise ImportError(
                "`workers` and `ray_address` need Ray: "
                "pip install '.[ray]', or 'ray[serve]'"
            ) from error
        self._ray, self.size = ray, size
        self._address = address
        self._resources = {"num_cpus": 1, **(resources or {})}
        self._make = make
        self._starting, self._running, self._free = {}, {}, []
        self._failures, self._owner = 0, False
        self.lost_workers, self.lost_seconds = 0, 0.0

    def __enter__(self):
        try:
            self._connect()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _connect(self):
        ray = self._ray
        self._owner = not ray.is_initialized()
        if self._owner:
            ray.init(
                address=self._address, log_to_driver=False, include_dashboard=False
            )
        if self.size is None:
            have = ray.cluster_resources()
            wanted = {"CPU": self._resources["num_cpus"]}
            if self._resources.get("num_gpus"):
                wanted["GPU"] = self._resources["num_gpus"]
            places = [int(have.get(kind, 0) // n) for kind, n in wanted.items() if n]
            self.size = max(1, min(places, default=1))
        threads = str(max(1, int(self._resources["num_cpus"])))
        environment = {
            # Else every worker takes all the cores of its machine.
            "TF_NUM_INTRAOP_THREADS": threads,
            "TF_NUM_INTEROP_THREADS": threads,
            "TF_CPP_MIN_LOG_LEVEL": "2",
            # This process may have a model on the same accelerator.
            "TF_FORCE_GPU_ALLOW_GROWTH": "true",
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
            "KERAS_BACKEND": keras.backend.backend(),
        }
        self._actor = ray.remote(_Actor).options(
            max_restarts=0, runtime_env={"env_vars": environment}, **self._resources
        )
        self._make = ray.put(self._make)

    def __exit__(self, *exception):
        started = [worker for worker, *_ in self._starting.values()]
        running = [worker for worker, *_ in self._running.values()]
        try:
            for worker in [*started, *running, *self._free]:
                self._ray.kill(worker)
        finally:
            if self._owner:
                self._ray.shutdown()

    def start(self, x):
        """Returns when workers are ready for rows like `x`: the seconds it took.

        Those that find no room within a minute come later.
        """
        self._x, begin = x, time.perf_counter()
        for _ in range(self.size):
            self._start_one(begin)
        while self._starting:
            self.wait()
            if self._free and time.perf_counter() - begin > PATIENCE:
                break
        return time.perf_counter() - begin

    def _start_one(self, since, replaces=False):
        worker = self._actor.remote(self._make)
        self._starting[worker.warm_up.remote(self._x)] = worker, since, replaces

    def idle(self):
        return bool(self._free)

    def busy(self):
        return bool(self._running)

    def submit(self, rows, most):
        worker = self._free.pop()
        task = worker.turn.remote(
            *(rows.x, rows.seed, rows.votes, rows.num_samples, most)
        )
        self._running[task] = worker, rows, time.perf_counter()

    def wait(self):
        ray = self._ray
        pending = [*self._running, *self._starting]
        none_yet = not (self._running or self._free)
        patience = SILENCE if none_yet else PATIENCE
        ended, _ = ray.wait(pending, num_returns=1, timeout=patience)
        if not ended:
            if none_yet:
                warnings.warn(
                    f"Waiting for a worker to start. Each needs {self._resources}; the "
                    f"cluster has {ray.cluster_resources()}.",
                    stacklevel=2,
                )
            return None
        task = ended[0]
        if task in self._starting:
            return self._started(task)
        worker, rows, since = self._running.pop(task)
        try:
            results = ray.get(task)
        except ray.exceptions.RayTaskError as error:
            # The worker's own error would come again.
            raise error.as_instanceof_cause() from None
        except ray.exceptions.RayError:
            now = time.perf_counter()
            self.lost_workers += 1
            self.lost_seconds += now - since
            self._start_one(now, replaces=True)
            self._replace_dead(now)
            return rows, None
        self._free.append(worker)
        return rows, results

    def _replace_dead(self, now):
        """Starts others for free workers that left with the same node, say."""
        if not self._free:
            return
        asked = {worker.ping.remote(): worker for worker in self._free}
        ended, _ = self._ray.wait([*asked], num_returns=len(asked), timeout=1.0)
        for answer in ended:
            try:
                self._ray.get(answer)
            except self._ray.exceptions.RayError:
                self._free.remove(asked[answer])
                self.lost_workers += 1
                self._start_one(now, replaces=True)

    def _started(self, task):
        worker, since, replaces = self._starting.pop(task)
        try:
            self._ray.get(task)
        except self._ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        except self._ray.exceptions.RayError as error:
            self._failures += 1
            if self._failures < STARTS:
                self._start_one(since, replaces)
            elif not (self._free or self._running or self._starting):
                raise RuntimeError(f"No worker starts: {error}") from error
            return None
        if replaces:
            self.lost_seconds += time.perf_counter() - since
        self._failures = 0
        self._free.append(worker)
        return None


class _Actor:
    """A `Worker` in a process of its own."""

    def __init__(self, make):
        self._make = make

    def warm_up(self, x):
        # Not in the constructor, whose errors look like those of a lost machine.
        self._worker = self._make()
        self._worker.warm_up(x)

    def ping(self):
        pass

    def turn(self, *arrays):
        return self._worker.turn(*arrays)
