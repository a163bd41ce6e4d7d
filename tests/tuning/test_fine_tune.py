"""FineTuneClassifier and FineTuneRegressor: training, and scikit-learn's rules."""

from __future__ import annotations

import copy
import pickle
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import skorch
import torch
from numpy.testing import assert_allclose
from sklearn.base import clone
from sklearn.callback import ProgressBar
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from torch import nn

from sktransfer.feature_extraction import (
    BaseExtractor,
    TorchFeatureExtractor,
)
from sktransfer.linear_model import LogMEClassifier
from sktransfer.tuning import BayesianTuning, FineTuneClassifier, FineTuneRegressor

FAST = {"max_epochs": 3, "batch_size": 16, "random_state": 0, "device": "cpu"}


class Recorder(skorch.callbacks.Callback):
    """Keeps the weights at the start."""

    def on_train_begin(self, net, **kwargs):
        self.start_ = copy.deepcopy(net.module_)


def test_equals_a_loop_written_out(make_extractor, data):
    X, y = data
    n_epochs, lr, decay = 7, 0.05, 1e-2
    recorder = Recorder()
    model = FineTuneClassifier(
        make_extractor(0),
        max_epochs=n_epochs,
        lr=lr,
        head_lr_factor=4,
        weight_decay=decay,
        batch_size=len(X),  # the order of the samples then plays no part
        callbacks=[recorder],
    ).fit(X, y)

    backbone, head = recorder.start_.backbone.module, recorder.start_.head
    optimizer = torch.optim.SGD(
        [
            {"params": backbone.parameters(), "lr": lr},
            {"params": head.parameters(), "lr": 4 * lr},
        ],
        momentum=0.9,
        nesterov=True,
        weight_decay=decay,
    )
    losses = []
    for epoch in range(n_epochs):
        for group, rate in zip(optimizer.param_groups, [lr, 4 * lr], strict=True):
            group["lr"] = rate * (1 + np.cos(np.pi * epoch / n_epochs)) / 2
        loss = nn.functional.cross_entropy(
            head(backbone(torch.from_numpy(X))), torch.from_numpy(y)
        )
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    np.testing.assert_allclose(model.history_[:, "train_loss"], losses, rtol=1e-5)
    torch.testing.assert_close(model.head_.weight, head.weight, rtol=1e-4, atol=1e-5)
    logits = head(backbone(torch.from_numpy(X)))
    np.testing.assert_allclose(
        model.predict_proba(X), logits.softmax(1).detach(), atol=1e-5
    )


def test_learns_labels_of_any_kind(make_extractor, data):
    X, y = data
    names = np.array(["cat", "dog", "ant"])[y]
    model = FineTuneClassifier(make_extractor(0), max_epochs=15, lr=0.1).fit(X, names)
    assert model.score(X, names) > 0.9
    assert set(model.predict(X)) <= set(names)
    assert model.classes_.tolist() == ["ant", "cat", "dog"]
    proba = model.predict_proba(X)
    np.testing.assert_allclose(proba.sum(axis=1), 1, rtol=1e-6)
    assert (model.classes_[proba.argmax(axis=1)] == model.predict(X)).all()


@pytest.mark.parametrize("shape", [(60,), (60, 1), (60, 2)])
def test_learns_numbers(make_extractor, data, shape):
    X, _ = data
    y = np.stack([np.tanh(X[:, 0]), np.tanh(X[:, 1])], axis=1)
    y = y[:, 0].reshape(shape) if np.prod(shape) == 60 else y
    model = FineTuneRegressor(make_extractor(0), max_epochs=60, lr=0.02).fit(X, y)
    assert model.predict(X).shape == shape
    assert model.score(X, y) > 0.7


def test_runs_repeat_and_leave_torch_alone(make_extractor, data, weights):
    X, y = data
    torch.manual_seed(1)
    expected = torch.rand(3)
    fits = []
    for seed in (0, 0, 1):
        torch.manual_seed(1)
        model = FineTuneClassifier(make_extractor(0), **{**FAST, "random_state": seed})
        fits.append(weights(model.fit(X, y)))
        torch.testing.assert_close(torch.rand(3), expected)
    np.testing.assert_array_equal(fits[0], fits[1])
    assert not np.array_equal(fits[0], fits[2])


def test_the_module_handed_in_is_left_as_it_was(make_extractor, data):
    X, y = data
    extractor = make_extractor(0)
    before = copy.deepcopy(extractor.network.state_dict())
    model = FineTuneClassifier(extractor, **FAST).fit(X, y)
    for name, value in extractor.network.state_dict().items():
        assert torch.equal(value, before[name])
    assert not torch.equal(model.module_[0].weight, before["0.weight"])
    assert not model.module_.training


def test_takes_modules_and_factories(data, weights):
    X, y = data

    def make():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return nn.Sequential(nn.Linear(6, 4), nn.Tanh())

    fits = [
        weights(FineTuneClassifier(module, **FAST).fit(X, y))
        for module in (make, make(), TorchFeatureExtractor(make, device="cpu"))
    ]
    np.testing.assert_array_equal(fits[0], fits[1])
    np.testing.assert_array_equal(fits[0], fits[2])


def test_layers_and_frozen_parameters(data):
    X, y = data
    module = nn.Sequential(nn.Linear(6, 4), nn.Tanh(), nn.Linear(4, 9))
    module[0].requires_grad_(False)
    extractor = TorchFeatureExtractor(module, layer=["0", "1"], source_head="2")
    model = FineTuneClassifier(extractor, **FAST).fit(X, y)
    assert model.head_.in_features == 8
    assert torch.equal(model.module_[0].weight, module[0].weight)


def test_batches_in_an_order_of_their_own(make_extractor, data, weights):
    class Backwards(TorchFeatureExtractor):
        def iter_batches(self, X, module, device):
            for rows, inputs in super().iter_batches(X, module, device):
                yield np.arange(len(X))[rows][::-1].copy(), inputs.flip(0)

    X, y = data
    extractor = make_extractor(0)
    plain = FineTuneClassifier(extractor, **FAST).fit(X, y)
    backwards = FineTuneClassifier(
        Backwards(extractor.network, device="cpu"), **FAST
    ).fit(X, y)
    np.testing.assert_allclose(
        backwards.predict_proba(X), plain.predict_proba(X), atol=1e-5
    )


def test_lists_and_datasets_are_read_like_arrays(make_extractor, data, weights):
    X, y = data
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(y))
    fits = [
        FineTuneClassifier(make_extractor(0), **FAST).fit(samples, y)
        for samples in (X, torch.from_numpy(X), list(X), dataset)
    ]
    for model in fits[1:]:
        np.testing.assert_allclose(weights(model), weights(fits[0]), atol=1e-6)
    assert fits[0].predict(dataset).shape == (60,)


def test_a_single_sample_left_over_joins_another_batch(data):
    X, y = data
    module = nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4))
    model = FineTuneClassifier(module, **{**FAST, "batch_size": 59}).fit(X, y)
    assert model.history_[-1, "train_batch_count"] == 1


def test_validation_and_early_stopping(make_extractor, data):
    X, y = data
    y = np.random.default_rng(0).permutation(y)  # nothing to learn but by heart
    options = {**FAST, "max_epochs": 40, "lr": 0.2, "validation_fraction": 0.3}
    full = FineTuneClassifier(make_extractor(0), **options).fit(X, y)
    assert len(full.history_) == 40
    stopped = FineTuneClassifier(
        make_extractor(0), **options, n_iter_no_change=4, callbacks=[Best()]
    ).fit(X, y)
    losses = stopped.history_[:, "valid_loss"]
    assert len(losses) < 40
    assert int(np.argmin(losses)) == len(losses) - 5
    ((_, best),) = [pair for pair in stopped.net_.callbacks_ if pair[0] == "Best"]
    assert torch.equal(stopped.head_.weight, best.weight_)
    assert "valid_acc" in stopped.history_[-1]


class Best(skorch.callbacks.Callback):
    """Keeps the head of the best epoch."""

    def on_epoch_end(self, net, **kwargs):
        if net.history[-1, "valid_loss_best"]:
            self.weight_ = net.module_.head.weight.detach().clone()


def test_validation_part_is_not_trained_on(make_extractor, data):
    X, y = data
    seen = []

    def note(batch):
        seen.extend(batch[:, 0].tolist())
        return batch

    FineTuneClassifier(
        make_extractor(0), **FAST, validation_fraction=0.25, augment=note
    ).fit(X, y)
    assert len(seen) == 45 * FAST["max_epochs"]
    assert len(set(seen)) == 45


def test_loss_of_nan_names_epoch_and_learning_rate(make_extractor, data):
    X, _ = data
    model = FineTuneRegressor(
        make_extractor(0), lr=1e6, schedule="constant", max_epochs=50
    )
    message = r"The loss was (nan|inf) in epoch \d+, at the learning rate\(s\) 1e\+06,"
    with pytest.raises(ValueError, match=message):
        model.fit(X, 1e6 * X[:, 0])
    assert not hasattr(model, "net_")


def test_a_label_that_would_be_unseen_is_refused(make_extractor, data):
    X, y = data
    y = np.where(np.arange(60) == 7, 99, y)
    model = FineTuneClassifier(make_extractor(0), validation_fraction=0.2)
    with pytest.raises(ValueError, match=r"unseen in training.*\[99\]"):
        model.fit(X, y)


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ({"lr": 0}, ValueError, "The 'lr' parameter of FineTuneClassifier"),
        ({"optimizer": "adam"}, ValueError, "'optimizer' parameter"),
        ({"n_iter_no_change": 2}, ValueError, "needs a 'validation_fraction'"),
        ({"penalty": "b-tuning"}, ValueError, "'penalty' parameter"),
        ({"device": "nowhere"}, ValueError, "'device' parameter"),
        ({"network": 3}, ValueError, "'network' parameter"),
    ],
)
def test_parameters_are_checked(make_extractor, data, params, error, message):
    model = FineTuneClassifier(make_extractor(0)).set_params(**params)
    with pytest.raises(error, match=message):
        model.fit(*data)


def test_other_errors(make_extractor, data):
    class Numbers(BaseExtractor):
        def extract(self, X, *, source_proba=False):
            raise NotImplementedError

    X, y = data
    model = FineTuneClassifier(make_extractor(0))
    with pytest.raises(NotFittedError):
        model.predict(X)
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(X, y[:-1])
    with pytest.raises(ValueError, match="at least 2 classes"):
        model.fit(X, np.ones(60, dtype=int))
    with pytest.raises(ValueError, match="Unknown label type"):
        model.fit(X, X[:, 0])
    with pytest.raises(ValueError, match="requires y to be passed"):
        model.fit(X, None)
    with pytest.raises(TypeError, match="Only torch modules can be fine-tuned"):
        FineTuneClassifier(Numbers()).fit(X, y)
    with pytest.raises(ValueError, match="as many samples as it gets. Got 1 for 16"):
        clone(model).set_params(augment=lambda batch: batch[:1]).fit(X, y)
    with pytest.raises(ValueError, match="contains NaN"):
        FineTuneRegressor(make_extractor(0)).fit(X, np.full(60, np.nan))


def test_optimizer_and_schedule_of_ones_own(make_extractor, data):
    X, y = data
    rates = []

    def schedule(optimizer, n_steps):
        assert n_steps == 3 * 4
        rates.append([group["lr"] for group in optimizer.param_groups])
        return torch.optim.lr_scheduler.StepLR(optimizer, 4, gamma=0.1)

    model = FineTuneClassifier(
        make_extractor(0), **FAST, optimizer=torch.optim.Adam, schedule=schedule
    ).fit(X, y)
    assert isinstance(model.net_.optimizer_, torch.optim.Adam)
    np.testing.assert_allclose(rates[0], [0.03, 0.3])
    last = [group["lr"] for group in model.net_.optimizer_.param_groups]
    np.testing.assert_allclose(last, [3e-5, 3e-4])


def test_progress_and_callbacks(make_extractor, data, capsys):
    X, y = data
    stop = skorch.callbacks.EarlyStopping(
        monitor="train_loss", patience=2, threshold=10.0, threshold_mode="abs"
    )
    options = {**FAST, "max_epochs": 9}
    model = FineTuneClassifier(
        make_extractor(0), **options, callbacks=[stop], verbose=1
    ).fit(X, y)
    assert 1 < len(model.history_) < 9
    assert "train_loss" in capsys.readouterr().out
    FineTuneClassifier(make_extractor(0), **FAST).set_callbacks(ProgressBar()).fit(X, y)


def test_callbacks_stop_training_in_a_thread_too(make_extractor, data):
    stop = skorch.callbacks.EarlyStopping(
        monitor="train_loss", patience=2, threshold=10.0, threshold_mode="abs"
    )
    model = FineTuneClassifier(make_extractor(0), **{**FAST, "max_epochs": 9})
    with ThreadPoolExecutor(1) as pool:
        pool.submit(model.set_params(callbacks=[stop]).fit, *data).result()
    assert 1 < len(model.history_) < 9


def test_an_interrupt_is_passed_on(make_extractor, data):
    def interrupt(batch):
        raise KeyboardInterrupt

    model = FineTuneClassifier(make_extractor(0), **FAST, augment=interrupt)
    with pytest.raises(KeyboardInterrupt):
        model.fit(*data)


def validation_row(model, X, y):
    """A row that the estimator sets apart for validation."""
    seen = set()

    def note(batch):
        seen.update(map(float, batch[:, 0]))
        return batch

    clone(model).set_params(augment=note, max_epochs=1).fit(X, y)
    return next(i for i in range(len(X)) if float(X[i, 0]) not in seen)


@pytest.mark.parametrize("patience", [None, 2])
def test_nan_in_a_validation_sample_is_no_early_end(make_extractor, data, patience):
    X, y = data
    options = {**FAST, "n_iter_no_change": patience, "validation_fraction": 0.3}
    model = FineTuneClassifier(make_extractor(0), **options)
    row = validation_row(model, X, y)
    X = X.copy()
    X[row, 1] = np.nan
    message = rf"validation loss was nan in epoch 1.*NaN or infinity.*\[{row}\]"
    with pytest.raises(ValueError, match=message):
        model.fit(X, y)


def test_nan_in_a_training_sample_names_it(make_extractor, data):
    X, y = data
    X = X.copy()
    X[[7, 50], 1] = np.nan
    model = FineTuneClassifier(make_extractor(0), batch_size=60, max_epochs=1)
    with pytest.raises(ValueError, match=r"loss was nan .* NaN in the samples \[7, 50"):
        model.fit(X, y)


@pytest.mark.parametrize("method", ["predict", "predict_proba", "score"])
def test_nan_in_a_sample_is_no_class(make_extractor, data, method):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), max_epochs=1, device="cpu").fit(X, y)
    X = X.copy()
    X[7, 1] = np.nan
    arguments = (X, y) if method == "score" else (X,)
    with pytest.raises(ValueError, match="for 1 of 60 samples, .* sample 7. Look for"):
        getattr(model, method)(*arguments)
    with pytest.raises(ValueError, match="for 1 of 1 samples, .* sample 0. Look for"):
        model.predict(X[7:8])


def test_diverged_weights_predict_nothing(make_extractor, data):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), max_epochs=1, device="cpu").fit(X, y)
    torch.nn.init.constant_(model.head_.weight, float("inf"))
    with pytest.raises(ValueError, match="for 60 of 60 samples.*a smaller 'lr'"):
        model.predict(X)


def test_infinite_validation_loss_is_no_early_end(make_extractor, data):
    X, y = data[0], data[0][:, 1].astype(float)
    network = torch.nn.Linear(6, 5)
    model = FineTuneRegressor(network, **FAST, validation_fraction=0.3)
    X[validation_row(model, X, y)] = 1e25  # the square overflows in float32
    with pytest.raises(ValueError, match="validation loss was inf in epoch 1.*large"):
        model.fit(X, y)


@pytest.mark.parametrize(("shift", "scale"), [(1e6, 1.0), (-3.0, 1e-7), (0.0, 1e30)])
def test_the_unit_of_the_targets_means_nothing(make_extractor, data, shift, scale):
    X = data[0]
    y = np.tanh(X[:, :2]).astype(float)
    model = FineTuneRegressor(make_extractor(0), **FAST).fit(X, y)
    moved = clone(model).fit(X, shift + scale * y)
    np.testing.assert_allclose(
        (moved.predict(X) - shift) / scale, model.predict(X), atol=1e-4
    )
    assert moved.history_[-1, "train_loss"] == pytest.approx(
        model.history_[-1, "train_loss"], rel=1e-4
    )


def test_mixed_precision(make_extractor, data):
    X, y = data
    options = {**FAST, "max_epochs": 10, "lr": 0.05}
    plain = FineTuneClassifier(make_extractor(0), **options).fit(X, y)
    mixed = clone(plain).set_params(mixed_precision=True).fit(X, y)
    assert mixed.module_[0].weight.dtype == torch.float32
    gap = np.abs(mixed.predict_proba(X) - plain.predict_proba(X)).max()
    assert 0 < gap < 0.1


def test_clone_and_pickle(make_extractor, data):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), **FAST, validation_fraction=0.2)
    model.fit(X, y)
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict_proba(X), model.predict_proba(X))
    assert again.history_[:, "train_loss"] == model.history_[:, "train_loss"]
    fresh = clone(model)
    assert not hasattr(fresh, "net_")
    np.testing.assert_array_equal(fresh.fit(X, y).predict(X), model.predict(X))


def test_cross_validation_and_grid_search(make_extractor, data):
    X, y = data
    model = FineTuneClassifier(make_extractor(0), **FAST)
    assert cross_val_score(model, X, y, cv=2).shape == (2,)
    grid = {"lr": [1e-6, 0.1], "weight_decay": [0.0, 1e-3]}
    search = GridSearchCV(model, grid, cv=2).fit(X, y)
    assert search.best_params_["lr"] == 0.1
    assert search.predict(X).shape == (60,)


# Features of so few different texts explain the labels without error.
@pytest.mark.filterwarnings("ignore::sktransfer.exceptions.UnboundedEvidenceWarning")
def test_texts(data, global_random_seed):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    from sktransfer.feature_extraction import TransformersFeatureExtractor

    words = ["[PAD]", "[UNK]", "good", "bad", "film", "a"]
    vocabulary = {word: i for i, word in enumerate(words)}
    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", model_max_length=16
    )
    config = transformers.BertConfig(
        vocab_size=6,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=16,
        initializer_range=0.3,  # words that so few steps can tell apart
    )
    with torch.random.fork_rng():
        torch.manual_seed(global_random_seed)
        model = transformers.BertModel(config)
    extractor = TransformersFeatureExtractor(model, tokenizer=tokenizer)
    y = data[1] % 2
    ends = np.array(["film bad", "film good"])[y]
    texts = [(i % 4) * "a " + end for i, end in enumerate(ends)]
    penalty = BayesianTuning([(extractor, LogMEClassifier())], weight=0.01)
    options = {**FAST, "max_epochs": 12, "lr": 0.01, "optimizer": "adamw"}
    model = FineTuneClassifier(extractor, penalty=penalty, **options).fit(texts, y)
    assert model.score(texts, y) > 0.9
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        again.predict_proba(texts), model.predict_proba(texts)
    )
    by_word = clone(extractor).set_params(pooling="tokens")
    with pytest.raises(ValueError, match="needs one row of features per sample"):
        FineTuneClassifier(by_word).fit(texts, y)


@pytest.mark.parametrize(
    ("n_samples", "batch_size", "n_epochs"), [(60, 16, 100), (240, 30, 50)]
)
def test_automatic_batches_and_epochs(
    make_extractor, data, n_samples, batch_size, n_epochs
):
    X, y = (np.resize(part, (n_samples, *part.shape[1:])) for part in data)
    model = FineTuneClassifier(make_extractor(0), device="cpu").fit(X, y)
    assert len(model.history_) == n_epochs
    assert len(model.history_[0, "batches"]) * n_epochs == 400
    assert model.net_.batch_size == batch_size


def test_a_constant_target_is_no_failure(make_extractor, data):
    X, _ = data
    model = FineTuneRegressor(make_extractor(1), max_epochs=1, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        model.fit(X, np.full(60, 5.0))
    assert_allclose(model.predict(X), 5, atol=2)


def test_a_failed_fit_leaves_nothing_of_the_last(make_extractor, data):
    X, _ = data
    model = FineTuneRegressor(make_extractor(1), max_epochs=1, device="cpu")
    model.fit(X, X[:, 0])
    with pytest.raises(ValueError, match="look for NaN"):
        model.fit(np.full_like(X, np.nan), 1000 + X[:, 0])
    with pytest.raises(NotFittedError):
        model.predict(X)


def test_threads_take_turns(make_extractor, data, weights):
    model = FineTuneClassifier(make_extractor(0), **FAST)
    expected = weights(clone(model).fit(*data))
    before = torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool:
        fits = list(pool.map(lambda _: clone(model).fit(*data), range(8)))
    for fit in fits:
        np.testing.assert_array_equal(weights(fit), expected)
    assert torch.equal(torch.get_rng_state(), before)


def test_without_gradients_around(make_extractor, data, weights):
    model = FineTuneClassifier(make_extractor(0), **FAST)
    expected = weights(clone(model).fit(*data))
    with torch.no_grad():
        np.testing.assert_array_equal(weights(clone(model).fit(*data)), expected)
