"""Two nodes of a Ray cluster on this machine: workers and nodes that are lost."""

import os
import signal
import sys
import threading
import time

import numpy as np
import pytest

from keras_probcert import CertifiedPredictor, LInf, certify_dataset

ROWS = 300
pytestmark = [pytest.mark.slow, pytest.mark.tensorflow]


@pytest.fixture(scope="module")
def cluster(make_predictor):
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    # Workers cannot import the tests.
    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])
    ray.cloudpickle.register_pickle_by_value(sys.modules[make_predictor.__module__])
    os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}
    found = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    found.worker_nodes_of_test = [found.add_node(num_cpus=1) for _ in range(2)]
    ray.init(address=found.address, log_to_driver=False)
    yield found
    ray.shutdown()
    found.shutdown()


def slow(make_predictor):
    """A predictor that takes its time, so that something can happen meanwhile."""
    import keras

    class Slow(keras.layers.Layer):
        def call(self, x):
            def wait(x):
                time.sleep(0.05)
                return x

            import tensorflow as tf

            y = tf.numpy_function(wait, [x], tf.float32)
            return tf.ensure_shape(y, x.shape)

    fast = make_predictor()
    base = keras.Sequential([keras.Input((2,)), Slow(), *fast.base_model.layers])
    return CertifiedPredictor(base, LInf(0.2), test=fast.test)


def test_a_worker_is_killed_and_a_node_leaves(
    cluster, make_predictor, assert_all_there, data, tmp_path
):
    from ray.util.state import list_actors

    happened = []

    def disturb():
        while not any((tmp_path / "certificates").glob("part-*")):
            time.sleep(0.1)
        actors = list_actors(filters=[("state", "=", "ALIVE")])
        os.kill(actors[0].pid, signal.SIGKILL)
        happened.append("killed")
        while len(list((tmp_path / "certificates").glob("part-*"))) < 3:
            time.sleep(0.1)
        cluster.remove_node(cluster.worker_nodes_of_test.pop())
        happened.append("node left")

    thread = threading.Thread(target=disturb, daemon=True)
    (tmp_path / "certificates").mkdir()
    thread.start()
    settings = {"seed": 7, "workers": 2, "batch_size": 20, "rows_a_file": 20}
    found = certify_dataset(
        lambda: slow(make_predictor), data, tmp_path, verbose=0, **settings
    )
    thread.join(10)
    assert happened == ["killed", "node left"]
    assert found["rows"] == found["new_rows"] == ROWS
    # The node may have left before the new worker on it was ready.
    assert found["lost_workers"] >= 1 and found["lost_seconds"] > 0
    assert_all_there(tmp_path)


def test_an_error_of_the_model_is_raised_as_it_is(
    cluster, make_predictor, data, tmp_path
):
    def broken():
        certified = make_predictor()
        certified.advance = lambda *arrays: 1 / 0
        return certified

    with pytest.raises(ZeroDivisionError):
        certify_dataset(broken, data, tmp_path, workers=1, verbose=0)


def test_ray_data(cluster, predictor, assert_all_there, data, tmp_path):
    import ray

    x, y = data
    rows = [{"x": x[i], "y": int(y[i])} for i in range(60)]
    # Several blocks, and work left to do that needs a core of its own.
    dataset = ray.data.from_items(rows, override_num_blocks=6).map(lambda row: row)
    found = certify_dataset(
        predictor, dataset, tmp_path, seed=7, ray_address="auto", verbose=0
    )
    assert found["rows"] == 60
    assert_all_there(tmp_path, 60)
    assert np.isfinite(found["start_seconds"])
