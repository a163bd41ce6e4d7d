"""A module in use: by one thread at a time, and afterwards as it was found."""

from __future__ import annotations

import copy
import os
import pickle
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import numpy as np
import pytest
from sklearn.base import clone

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sktransfer.datasets import load_zoo_network  # noqa: E402
from sktransfer.feature_extraction import TorchFeatureExtractor  # noqa: E402
from sktransfer.feature_extraction._in_use import copy_module  # noqa: E402
from sktransfer.utils import _exclusive  # noqa: E402
from sktransfer.utils._exclusive import exclusive  # noqa: E402


class Slow(nn.Module):
    """Lets other threads run between its layers."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(4, 6)
        self.norm = nn.BatchNorm1d(6)
        self.drop = nn.Dropout(0.5)

    def forward(self, x):
        x = self.first(x)
        time.sleep(0.002)
        return self.drop(self.norm(x))


def in_threads(tasks):
    """Run all tasks at the same time; their results."""
    together = threading.Barrier(len(tasks))

    def run(task):
        together.wait(timeout=60)
        return task()

    with ThreadPoolExecutor(len(tasks)) as pool:
        return list(pool.map(run, tasks))


@pytest.mark.parametrize("shared", ["extractor", "module", "part"])
def test_threads_that_share_a_module_get_right_features(shared, global_random_seed):
    rng = np.random.default_rng(global_random_seed)
    net = Slow().train()
    inputs = [rng.normal(size=(24, 4)).astype(np.float32) for _ in range(4)]
    one = TorchFeatureExtractor(net, batch_size=4)
    extractors = [one] * 4
    if shared == "module":
        extractors = [TorchFeatureExtractor(net, batch_size=4) for _ in range(4)]
    if shared == "part":
        whole = nn.Sequential(net).train()
        extractors = [one, TorchFeatureExtractor(whole, batch_size=4)] * 2
    before = copy.deepcopy(net.state_dict())
    alone = [e.transform(X) for e, X in zip(extractors, inputs, strict=True)]
    for _ in range(3):
        features = in_threads(
            [
                lambda e=e, X=X: e.transform(X)
                for e, X in zip(extractors, inputs, strict=True)
            ]
        )
        for found, expected in zip(features, alone, strict=True):
            np.testing.assert_array_equal(found, expected)
    # No thread brought training back while another was at work.
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert all(part.training for part in net.modules())


def test_a_factory_is_called_once_by_many_threads():
    made = []

    def factory():
        made.append(Slow())
        time.sleep(0.01)
        return made[-1]

    extractor = TorchFeatureExtractor(factory)
    X = np.ones((3, 4), dtype=np.float32)
    features = in_threads([lambda: extractor.transform(X)] * 4)
    assert len(made) == 1
    for found in features:
        np.testing.assert_array_equal(found, features[0])


def test_a_clone_made_during_use_is_that_of_the_module_at_rest():
    started = threading.Event()
    net = Slow().train()

    def pooling(tensor):
        started.set()
        time.sleep(0.05)
        return tensor

    extractor = TorchFeatureExtractor(net, layer="first", pooling=pooling)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(extractor.transform, np.ones((2, 4)))
        assert started.wait(60)
        copied = clone(extractor).network
        running.result()
    assert all(part.training for part in copied.modules())
    assert not any(part._forward_hooks for part in copied.modules())


def test_networks_made_in_threads_leave_the_random_state_alone():
    state = torch.get_rng_state()
    in_threads([lambda: load_zoo_network("plain-handwritten")] * 4)
    assert torch.equal(torch.get_rng_state(), state)


def test_exclusive_objects_that_overlap():
    a, b, c = object(), object(), object()
    inside, wrong = [], []

    def work(objects):
        for _ in range(30):
            with exclusive(objects), exclusive(objects[:1]):
                wrong.extend(set(map(id, objects)) & set(inside))
                inside.extend(map(id, objects))
                time.sleep(0.0002)
                for one in objects:
                    inside.remove(id(one))

    in_threads([lambda o=o: work(o) for o in ([a, b], [b, c], [c, a], [a, b, c])])
    assert not wrong
    assert not _exclusive._holders


def test_threads_that_would_wait_for_each_other_are_told():
    modules = [nn.Linear(4, 4), nn.Linear(4, 4)]
    inner = [TorchFeatureExtractor(module) for module in modules]
    together = threading.Barrier(2)

    def task(i):
        def preprocess(x):
            with suppress(threading.BrokenBarrierError):
                together.wait(timeout=1)  # both have their own module now
            return inner[1 - i].transform(x[None])[0]

        outer = TorchFeatureExtractor(modules[i], preprocess=preprocess)
        try:
            return outer.transform([np.ones(4, np.float32)])
        except ValueError as error:
            return str(error)

    found = in_threads([lambda: task(0), lambda: task(1)])
    told = [text for text in found if isinstance(text, str)]
    assert len(told) == 1
    assert "wait for each other for ever" in told[0]
    assert not _exclusive._holders
    assert not _exclusive._wanted


def test_an_error_gives_objects_free():
    thing = object()
    with pytest.raises(KeyboardInterrupt), exclusive([thing]):
        raise KeyboardInterrupt

    def take():
        with exclusive([thing]):
            return True

    assert in_threads([take, take]) == [True, True]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork")
def test_a_forked_process_waits_for_no_thread_of_its_parent():
    thing, leave = object(), threading.Event()

    def hold():
        with exclusive([thing]):
            started.set()
            leave.wait(60)

    started = threading.Event()
    holder = threading.Thread(target=hold)
    holder.start()
    started.wait(60)
    child = os.fork()
    if child == 0:
        with exclusive([thing]):
            os._exit(0)
    try:
        deadline = time.monotonic() + 20
        done = (0, 0)
        while done[0] == 0 and time.monotonic() < deadline:
            done = os.waitpid(child, os.WNOHANG)
            time.sleep(0.01)
    finally:
        leave.set()
        holder.join()
        if done[0] == 0:
            os.kill(child, 9)
            os.waitpid(child, 0)
    assert done == (child, 0)


class Merging(nn.Linear):
    """Low-rank adaptation that merges in evaluation mode, as loralib's does."""

    def __init__(self, n_in, n_out):
        super().__init__(n_in, n_out)
        # Powers of two, so that merging and its undoing are exact.
        self.weight = nn.Parameter(torch.full((n_out, n_in), 0.5), requires_grad=False)
        self.low = nn.Parameter(torch.full((n_out, n_in), 0.25))
        self.merged = False

    def train(self, mode=True):
        super().train(mode)
        if mode == self.merged:
            self.weight.data += -self.low if mode else self.low
            self.merged = not mode
        return self

    def forward(self, x):
        weight = self.weight if self.merged else self.weight + self.low
        return nn.functional.linear(x, weight)


@pytest.mark.parametrize("modes", [(True, True), (True, False), (False, True)])
def test_a_layer_that_merges_in_evaluation_comes_back_as_it_was(modes):
    net = nn.Sequential(Merging(3, 4), nn.ReLU(), Merging(4, 2))
    net.train(modes[0])
    net[2].train(modes[1])
    state = [(part.training, part.merged) for part in (net[0], net[2])]
    weights = copy.deepcopy(net.state_dict())
    TorchFeatureExtractor(net).transform(np.ones((5, 3)))
    assert [(part.training, part.merged) for part in (net[0], net[2])] == state
    assert net.training is modes[0]
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, weights[name])


class FrozenNorm(nn.Sequential):
    """Keeps its batch norm out of training, as detection networks do."""

    def train(self, mode=True):
        super().train(mode)
        self[1].eval()
        return self


@pytest.mark.parametrize("norm_mode", [True, False])
def test_mixed_modes_come_back(norm_mode):
    frozen = FrozenNorm(nn.Linear(3, 3), nn.BatchNorm1d(3))
    net = nn.Sequential(frozen, nn.BatchNorm1d(3), nn.Dropout()).train()
    net[1].eval()
    frozen[1].training = norm_mode  # against what train() would do
    modes = [part.training for part in net.modules()]
    TorchFeatureExtractor(net).transform(np.ones((5, 3)))
    assert [part.training for part in net.modules()] == modes


def test_modes_and_hooks_come_back_after_an_interrupt():
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)).train()

    def pooling(tensor):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        TorchFeatureExtractor(net, layer="*", pooling=pooling).transform(np.eye(3))
    assert all(part.training for part in net.modules())
    assert not any(part._forward_hooks for part in net.modules())
    assert in_threads([lambda: TorchFeatureExtractor(net).transform(np.eye(3)).shape])


class Remembers(nn.Module):
    """Keeps a table that it makes at the first pass, as rotary embeddings do."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.table = None

    def forward(self, x):
        if self.table is None:
            self.table = torch.arange(3.0)
        return x * self.weight * self.table


def test_what_a_module_keeps_of_a_pass_can_be_trained_with():
    net = Remembers()
    TorchFeatureExtractor(net).transform(np.eye(3))
    assert not net.table.is_inference()
    net(torch.eye(3)).sum().backward()
    assert net.weight.grad is not None


class Scores(nn.Module):
    """Gives a gradient of its own, as energy models do."""

    def forward(self, x):
        with torch.enable_grad():
            x = x.clone().requires_grad_()
            (gradient,) = torch.autograd.grad((x**2).sum(), x)
            return x + gradient


def test_gradients_inside_a_module():
    X = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(TorchFeatureExtractor(Scores).transform(X), 3 * X)


def test_a_module_without_weights_is_refused():
    with torch.device("meta"):
        net = nn.Linear(3, 2)
    with pytest.raises(ValueError, match="Linear has tensors on the device 'meta'"):
        TorchFeatureExtractor(net).transform(np.eye(3))


def test_extractors_that_have_run_can_be_copied_and_pickled():
    net = Slow()
    extractor = TorchFeatureExtractor(net)
    expected = extractor.transform(np.eye(4))
    for other in (copy.deepcopy(extractor), pickle.loads(pickle.dumps(extractor))):
        np.testing.assert_array_equal(other.transform(np.eye(4)), expected)


def test_a_module_is_not_copied_in_the_middle_of_a_pass():
    """The copy would keep the hooks of the other thread."""
    inside, go_on = threading.Event(), threading.Event()

    class Waiting(nn.Module):
        def forward(self, x):
            inside.set()
            assert go_on.wait(60)
            return x

    module = Waiting()
    extractor = TorchFeatureExtractor(module, device="cpu")
    with ThreadPoolExecutor(2) as pool:
        features = pool.submit(extractor.transform, np.ones((2, 3), np.float32))
        assert inside.wait(60)
        copied = pool.submit(copy_module, module)
        time.sleep(0.1)
        assert not copied.done()
        go_on.set()
        assert features.result().shape == (2, 3)
        assert not copied.result()._forward_hooks
