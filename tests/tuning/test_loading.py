"""Worker processes: the same training, and nothing left of them."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skorch
import torch
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from torch import nn

from sktransfer.feature_extraction import TorchFeatureExtractor
from sktransfer.tuning import BasePenalty, FineTuneClassifier
from sktransfer.tuning._workers import Reader, without_weights

OPTIONS = {"max_epochs": 2, "batch_size": 13, "random_state": 0, "device": "cpu"}

pytestmark = pytest.mark.skipif(
    multiprocessing.get_start_method() != "fork",
    reason="Workers that are not forked take seconds to start.",
)


def workers():
    """Those of torch; joblib keeps its own for the next call."""
    children = multiprocessing.active_children()
    return [p for p in children if not type(p).__name__.startswith("Loky")]


@pytest.fixture(autouse=True)
def no_worker_is_left():
    yield
    assert workers() == []


def noisy(batch):
    return batch + 0.1 * torch.randn(batch.shape).numpy()


def slow(batch):
    time.sleep(0.2)
    return batch


def network():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 5)
        )


def test_any_number_of_workers_gives_the_same_training(data, weights):
    X, y = data  # four batches, the last of 9, or one sample left over
    for n_samples in (48, 53):
        fits = [
            FineTuneClassifier(
                network, **OPTIONS, validation_fraction=0.25, num_workers=n
            ).fit(X[:n_samples], y[:n_samples])
            for n in (0, 1, 2)
        ]
        for model in fits[1:]:
            np.testing.assert_array_equal(weights(model), weights(fits[0]))
            np.testing.assert_array_equal(
                model.predict_proba(X), fits[0].predict_proba(X)
            )


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_more_workers_than_batches(data, weights):
    X, y = data
    fits = []
    for size, n_workers in [(30, 0), (30, 9), (60, 0), (60, 9)]:
        options = {**OPTIONS, "batch_size": size, "num_workers": n_workers}
        fits.append(weights(FineTuneClassifier(network, **options).fit(X, y)))
    np.testing.assert_array_equal(fits[0], fits[1])
    np.testing.assert_array_equal(fits[2], fits[3])


def test_augmentation_repeats_with_as_many_workers(data, weights):
    def fit(seed):
        model = FineTuneClassifier(network, augment=noisy, num_workers=2, **OPTIONS)
        return weights(model.set_params(random_state=seed).fit(*data))

    first = fit(0)
    np.testing.assert_array_equal(fit(0), first)
    assert not np.array_equal(fit(1), first)


def test_workers_draw_other_numbers_in_each_batch_and_epoch(data, tmp_path):
    def note(batch):
        with open(tmp_path / str(os.getpid()), "a") as file:
            file.write(f"{torch.rand(1).item()}\n")
        return batch

    FineTuneClassifier(network, augment=note, num_workers=2, **OPTIONS).fit(*data)
    files = list(tmp_path.iterdir())
    drawn = [line for file in files for line in file.read_text().split()]
    assert len(files) == 2 * 2  # workers and epochs
    assert str(os.getpid()) not in [file.name for file in files]
    assert len(set(drawn)) == len(drawn) == 2 * 5


class Stop:
    """Augmentation that draws random numbers, and fails in one epoch."""

    def __init__(self, file):
        self.file = file

    def __call__(self, batch):
        if self.file.exists():
            raise RuntimeError("pulled the plug")
        return noisy(batch)

    def __getstate__(self):
        return {"file": None}


def test_resumed_training_equals_one_without_a_break(data, weights, tmp_path):
    class Pull(skorch.callbacks.Callback):
        def on_epoch_begin(self, net, **kwargs):
            if len(net.history) == 3 and os.environ.get("PULL_THE_PLUG"):
                plug.touch()

    plug = tmp_path / "plug"
    options = {**OPTIONS, "max_epochs": 5, "num_workers": 2, "augment": Stop(plug)}
    whole = FineTuneClassifier(network, callbacks=[Pull()], **options).fit(*data)
    model = clone(whole).set_params(checkpoint_dir=tmp_path / "checkpoints")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PULL_THE_PLUG", "now")
        with pytest.raises(RuntimeError, match="pulled the plug"):
            model.set_params(augment=Stop(plug)).fit(*data)
    plug.unlink()
    model.set_params(augment=Stop(plug)).fit(*data)
    np.testing.assert_array_equal(weights(model), weights(whole))
    assert len(list((tmp_path / "checkpoints").iterdir())) == 1


class Sees(BasePenalty):
    """Compares the features with those of the raw samples that it gets."""

    def bind(self, context):
        def term(batch):
            samples = torch.from_numpy(np.asarray(batch.X))
            mean = context.module.eval()(samples) - batch.features
            seen.append(np.asarray(batch.X))
            return mean.square().mean()

        return term


seen = []


def test_penalties_see_the_augmented_samples(make_extractor, data):
    seen.clear()
    model = FineTuneClassifier(
        make_extractor(0), penalty=Sees(), augment=noisy, num_workers=2, **OPTIONS
    ).fit(*data)
    assert max(model.history_[:, "train_penalty"]) < 1e-12
    assert len(np.concatenate(seen)) == 2 * len(data[0])


class Own(Exception):
    def __init__(self, text, more):
        super().__init__(text)


@pytest.mark.parametrize(
    ("error", "expected"),
    [(KeyError("no"), KeyError), (Own("no", 1), RuntimeError)],
)
def test_errors_in_workers_are_raised_as_they_are(data, error, expected):
    def fail(batch):
        raise error

    model = FineTuneClassifier(network, augment=fail, num_workers=2, **OPTIONS)
    with pytest.raises(expected, match="no") as caught:
        model.fit(*data)
    assert "Traceback" not in str(caught.value)


def test_samples_that_cannot_be_sent_do_not_hang(make_extractor, data):
    class Unsendable(np.ndarray):
        def __reduce__(self):
            raise TypeError("cannot be pickled at all")

    model = FineTuneClassifier(
        make_extractor(0),
        penalty=Sees(),
        augment=lambda batch: batch.view(Unsendable),
        num_workers=2,
        **OPTIONS,
    )
    with pytest.raises(TypeError, match="cannot be pickled at all"):
        model.fit(*data)


def test_a_sample_that_cannot_be_read_is_named(make_extractor, data):
    class Rows(torch.utils.data.Dataset):
        def __init__(self):
            self.lock = threading.Lock()  # cannot be pickled

        def __len__(self):
            return 60

        def __getitem__(self, i):
            if i == self.bad:
                raise OSError("no such row")
            return data[0][i]

    rows = Rows()
    for n_workers in (0, 2):
        rows.bad = -1
        model = FineTuneClassifier(make_extractor(0), num_workers=n_workers, **OPTIONS)
        model.fit(rows, data[1])
        rows.bad = 7
        message = "Sample 7 could not be .*no such row"
        with pytest.raises(ValueError, match=message):
            model.predict(rows)
        with pytest.raises(ValueError, match=message):
            model.fit(rows, data[1])


def after(seconds, action):
    thread = threading.Timer(seconds, action)
    thread.start()
    return thread


def test_a_worker_that_is_killed_is_an_error(data):
    def kill():
        while not workers():
            time.sleep(0.01)
        os.kill(workers()[0].pid, signal.SIGKILL)

    model = FineTuneClassifier(network, augment=slow, num_workers=2, **OPTIONS)
    thread = after(0.3, kill)
    with pytest.raises(RuntimeError, match="worker"):
        model.set_params(max_epochs=50).fit(*data)
    thread.join()


def test_ctrl_c_ends_workers(data):
    def press():
        while not workers():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    model = FineTuneClassifier(network, augment=slow, num_workers=2, **OPTIONS)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread = after(0.3, press)
    try:
        with pytest.raises(KeyboardInterrupt):
            model.set_params(max_epochs=50).fit(*data)
        # Before the traceback, which holds the iterator, is gone.
        assert workers() == []
    finally:
        signal.signal(signal.SIGINT, before)
        thread.join()


def test_an_error_of_the_training_ends_workers(data):
    class Fail(skorch.callbacks.Callback):
        def on_batch_end(self, net, **kwargs):
            raise RuntimeError("enough")

    model = FineTuneClassifier(network, callbacks=[Fail()], num_workers=2, **OPTIONS)
    with pytest.raises(RuntimeError, match="enough") as error:
        model.fit(*data)
    assert workers() == []
    assert error.tb is not None


def test_warnings_of_workers_are_shown_once(make_extractor, data):
    def warn(batch):
        warnings.warn("a rare sample", UserWarning, stacklevel=1)
        return batch

    model = FineTuneClassifier(
        make_extractor(0), augment=warn, num_workers=2, **OPTIONS
    )
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("default")
        model.fit(*data)
    assert len([w for w in record if "rare" in str(w.message)]) == 1


def test_batches_in_an_order_of_their_own(make_extractor, data, weights):
    class Backwards(TorchFeatureExtractor):
        def iter_batches(self, X, module, device):
            for rows, inputs in super().iter_batches(X, module, device):
                yield np.arange(len(X))[rows][::-1].copy(), inputs.flip(0)

    extractor = Backwards(make_extractor(0).network, device="cpu")
    fits = [
        weights(FineTuneClassifier(extractor, num_workers=n, **OPTIONS).fit(*data))
        for n in (0, 2)
    ]
    np.testing.assert_array_equal(fits[0], fits[1])


def test_workers_get_no_weights():
    module = nn.Sequential(nn.Linear(1000, 1000), nn.BatchNorm1d(1000))
    module[1].weight.requires_grad_(False)
    empty = without_weights(module)
    assert {tensor.device.type for tensor in empty.state_dict().values()} == {"meta"}
    assert [p.requires_grad for p in empty.parameters()] == [True, True, False, True]
    assert module[0].weight.device.type == "cpu"
    extractor = TorchFeatureExtractor(module, preprocess=np.sqrt, device="cpu")
    pickled = pickle.dumps(Reader(extractor, module))
    assert len(pickled) < 10_000
    ((rows, inputs),) = pickle.loads(pickled)(np.full((3, 1000), 4.0, np.float32))
    assert (rows.start, rows.stop) == (0, 3)
    torch.testing.assert_close(inputs, torch.full((3, 1000), 2.0))


def test_workers_of_workers(make_extractor, data):
    model = FineTuneClassifier(make_extractor(0), num_workers=2, **OPTIONS)
    scores = cross_val_score(model, *data, cv=2, n_jobs=2, error_score="raise")
    model.set_params(num_workers=0)
    np.testing.assert_array_equal(scores, cross_val_score(model, *data, cv=2))


def test_trainings_in_threads(make_extractor, data, weights):
    model = FineTuneClassifier(make_extractor(0), num_workers=2, **OPTIONS)
    with ThreadPoolExecutor(3) as pool:
        fits = [pool.submit(clone(model).fit, *data) for _ in range(3)]
        while not all(fit.done() for fit in fits):
            assert workers() == []  # threads that fork can wait for ever
            time.sleep(0.01)
        results = [weights(fit.result()) for fit in fits]
    assert all(np.isfinite(result).all() for result in results)


def test_a_fitted_model_predicts_with_the_workers_set(make_extractor, data):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), num_workers=2, **OPTIONS).fit(X, y)
    expected = model.predict_proba(X)
    again = pickle.loads(pickle.dumps(model)).set_params(num_workers=0)
    np.testing.assert_array_equal(again.predict_proba(X), expected)
    assert again.net_.num_workers == 0
