"""Extraction as a stream: batches where they were computed, read in any way."""

from __future__ import annotations

import gc
import inspect
import threading

import numpy as np
import pytest
from sklearn.base import clone

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from sktransfer.feature_extraction import (  # noqa: E402
    BaseExtractor,
    Extraction,
    TorchFeatureExtractor,
)
from sktransfer.linear_model import LogMEClassifier  # noqa: E402
from sktransfer.utils import _exclusive  # noqa: E402


def make_net():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Linear(6, 3))
    net.train()
    net[0].eval()
    return net


@pytest.fixture
def net():
    return make_net()


@pytest.fixture
def X():
    return np.random.default_rng(0).normal(size=(20, 4)).astype(np.float32)


def make(net, **params):
    params = {"source_head": "2", "layer": ["0", "1"], "batch_size": 8, **params}
    return TorchFeatureExtractor(net, **params)


def check_at_rest(net):
    assert [part.training for part in net.modules()] == [True, False, True, True]
    assert not any(part._forward_hooks for part in net.modules())
    assert not _exclusive._holders


def test_batches_are_tensors_and_collected_in_order(net, X):
    extractor = make(net)
    whole = extractor.extract(X, source_proba=True)
    batches = list(extractor.iter_extract(X, source_proba=True))
    assert [len(whole.joined[rows]) for rows, _ in batches] == [8, 8, 4]
    for rows, batch in batches:
        for name, features in batch.features.items():
            assert isinstance(features, torch.Tensor) and not features.requires_grad
            np.testing.assert_array_equal(features, whole.features[name][rows])
        np.testing.assert_array_equal(batch.joined, whole.joined[rows])
        np.testing.assert_array_equal(batch.source_proba, whole.source_proba[rows])
    assert all(f.dtype == np.float32 for f in whole.features.values())
    assert next(extractor.iter_extract(X))[1].source_proba is None
    check_at_rest(net)


def test_ranked_without_keeping_features(net, X):
    extractor = make(net, device="cpu")
    y = torch.arange(20) % 3
    model = LogMEClassifier()
    for rows, batch in extractor.iter_extract(X):
        model.partial_fit(batch.joined, y[rows], classes=[0, 1, 2])
    whole = LogMEClassifier().fit(extractor.transform(X), y.numpy())
    assert float(model.logme_) == pytest.approx(whole.logme_, rel=1e-5)


@pytest.mark.parametrize("leave", ["close", "forget", "error"])
def test_an_abandoned_stream_puts_the_module_back(net, X, leave):
    stream = make(net).iter_extract(X)
    next(stream)
    assert not net.training
    if leave == "close":
        stream.close()
    elif leave == "error":
        with pytest.raises(KeyError):
            stream.throw(KeyError)
    else:
        del stream
        gc.collect()
    check_at_rest(net)


def test_a_stream_that_was_never_read_changes_nothing(net, X):
    make(net).iter_extract(X)
    check_at_rest(net)


def test_an_error_while_collecting_puts_the_module_back(net, X):
    class Growing(TorchFeatureExtractor):
        def iter_extract(self, X, *, source_proba=False):
            for i, (rows, batch) in enumerate(super().iter_extract(X)):
                yield rows, Extraction({"a": batch.joined[:, : 3 + i]})

    with pytest.raises(ValueError, match="gave 3 at first, then 4") as caught:
        Growing(net, layer="0", batch_size=8).extract(X)
    check_at_rest(net)
    del caught


def test_the_extractor_may_be_used_while_it_is_streamed(net, X):
    extractor = make(net)
    expected = extractor.transform(X)
    rows_seen = []
    for rows, batch in extractor.iter_extract(X):
        np.testing.assert_array_equal(extractor.transform(X), expected)
        np.testing.assert_array_equal(batch.joined, expected[rows])
        clone(extractor)
        rows_seen.append(rows)
    assert len(rows_seen) == 3
    check_at_rest(net)


@pytest.mark.parametrize("first_is_part", [False, True])
def test_streams_of_one_thread_that_overlap(net, X, first_is_part):
    """One ends, and the other still needs evaluation mode."""
    short, long = make(net), make(net)
    if first_is_part:
        short = TorchFeatureExtractor(net[1], batch_size=8)
        X_short = np.ones((10, 6), dtype=np.float32)
    else:
        X_short = X[:10]
    expected = long.transform(X)
    running_mean = net[1].running_mean.clone()
    for order in (1, -1):
        streams = [(short, X_short), (long, X)][::order]
        streams = {one: one.iter_extract(samples) for one, samples in streams}
        for stream in streams.values():
            next(stream)
        assert len(list(streams[short])) == 1
        assert not net.training and _exclusive._holders
        for rows, batch in streams[long]:
            np.testing.assert_array_equal(batch.joined, expected[rows])
        check_at_rest(net)
    assert torch.equal(net[1].running_mean, running_mean)


def test_another_thread_waits_for_the_stream(net, X):
    extractor = make(net)
    expected = extractor.transform(X)
    found = []
    stream = extractor.iter_extract(X)
    next(stream)
    other = threading.Thread(target=lambda: found.append(extractor.transform(X)))
    other.start()
    other.join(0.1)
    assert not found
    for _ in stream:
        pass
    other.join(60)
    np.testing.assert_array_equal(found[0], expected)
    check_at_rest(net)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_a_stream_stays_on_the_gpu(net, X):
    extractor = make(net, device="cuda")
    for rows, batch in extractor.iter_extract(X, source_proba=True):
        assert batch.joined.is_cuda and batch.source_proba.is_cuda
        np.testing.assert_allclose(
            batch.joined.cpu(), make(net).transform(X)[rows], atol=1e-5
        )
    assert next(net.parameters()).device.type == "cpu"
    np.testing.assert_allclose(
        extractor.transform(X), make(net, device="cpu").transform(X), atol=1e-5
    )


def texts_and_words(make_model, tokenizers):
    pytest.importorskip("transformers")
    from sktransfer.feature_extraction import TransformersFeatureExtractor

    extractor = TransformersFeatureExtractor(
        make_model("encoder", "BertModel"),
        tokenizer=tokenizers["encoder"],
        layer=[1, -1],
        batch_size=3,
    )
    texts = ["good film", "bad", "good film", "a film is a film", "bad", "bad", "it"]
    return extractor, texts


@pytest.mark.parametrize("as_words", [False, True])
def test_texts_and_words_are_streamed(make_model, tokenizers, as_words):
    extractor, texts = texts_and_words(make_model, tokenizers)
    if as_words:
        extractor.set_params(pooling="tokens")
        texts = [text.split() for text in texts]
    whole = extractor.extract(texts).joined
    streamed = np.full_like(whole, np.nan)
    for rows, batch in extractor.iter_extract(texts):
        assert isinstance(batch.joined, torch.Tensor)
        assert np.isnan(streamed[rows]).all()
        streamed[rows] = batch.joined
    np.testing.assert_array_equal(streamed, whole)


def test_overlapping_streams_of_inner_layers(make_model, tokenizers):
    extractor, texts = texts_and_words(make_model, tokenizers)
    expected = extractor.transform(texts)
    first = extractor.iter_extract(texts)
    next(first)
    second = extractor.iter_extract(texts)
    next(second)
    first.close()
    for rows, batch in second:
        np.testing.assert_array_equal(batch.joined, expected[rows])
    model = extractor.network
    assert not any(part._forward_hooks for part in model.modules())
    np.testing.assert_array_equal(extractor.transform(texts), expected)


class Whole(BaseExtractor):
    def extract(self, X, *, source_proba=False):
        return Extraction({"x": np.asarray(X)})


class Pieces(BaseExtractor):
    """Reads the last samples first."""

    def iter_extract(self, X, *, source_proba=False):
        for start in range(len(X) - 1, -1, -2):
            rows = np.arange(max(start - 1, 0), start + 1)
            yield rows, Extraction({"x": torch.as_tensor(X[rows], dtype=torch.float64)})


class Doubled(Pieces):
    def extract(self, X, *, source_proba=False):
        return Extraction({"x": 2 * super().extract(X).joined})


class Negative(Doubled):
    def iter_extract(self, X, *, source_proba=False):
        for rows, batch in super().iter_extract(X):
            yield rows, Extraction({"x": -batch.joined})


@pytest.mark.parametrize(
    ("kind", "factor"), [(Whole, 1), (Pieces, 1), (Doubled, 2), (Negative, -2)]
)
def test_each_of_the_two_follows_from_the_other(kind, factor, X):
    extractor = kind()
    np.testing.assert_array_equal(extractor.extract(X).joined, factor * X)
    assert extractor.transform(X).dtype == np.float32
    for rows, batch in extractor.iter_extract(X):
        np.testing.assert_array_equal(batch.joined, factor * X[rows])
    for name in ("extract", "iter_extract"):
        assert inspect.getdoc(getattr(kind, name)) == inspect.getdoc(
            getattr(BaseExtractor, name)
        )


@pytest.mark.parametrize("base", [BaseExtractor, Whole, Pieces, Negative])
def test_the_other_follows_from_a_mixin_too(base, X):
    class Halved:
        def extract(self, X, *, source_proba=False):
            return Extraction({"x": np.asarray(X) / 2})

    class Mixed(Halved, base):
        pass

    ((rows, batch),) = Mixed().iter_extract(X)
    np.testing.assert_array_equal(batch.joined, X[rows] / 2)
    np.testing.assert_array_equal(Mixed().transform(X), X / 2)


def test_a_class_with_neither_is_abstract():
    class Neither(BaseExtractor):
        pass

    assert inspect.isabstract(Neither) and not inspect.isabstract(Pieces)
    with pytest.raises(TypeError, match="abstract.*extract.*iter_extract"):
        Neither()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "It has yielded no batch"),
        ([slice(0, 8), slice(9, 20)], "It has yielded no row 8"),
        ([slice(0, 8), slice(7, 20)], "It has yielded 21 rows for 20"),
    ],
)
def test_a_stream_with_gaps_or_repeats_is_refused(X, rows, message):
    class Gaps(BaseExtractor):
        def iter_extract(self, X, *, source_proba=False):
            for own in rows:
                yield own, Extraction({"x": X[own]})

    with pytest.raises(ValueError, match=f"Gaps.iter_extract must.*{message}"):
        Gaps().extract(X)


def test_a_batch_of_another_shape_is_refused(X):
    class Short(BaseExtractor):
        def iter_extract(self, X, *, source_proba=False):
            yield slice(0, len(X)), Extraction({"x": X[:1]})

    with pytest.raises(ValueError, match="layer 'x' gave 1 rows for 20"):
        Short().extract(X)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        (Extraction({}), TypeError, "dict of arrays by layer. Got an Extraction"),
        ({"x": np.ones((20, 2))}, TypeError, "dict of arrays by layer. Got a dict"),
        (Extraction({"x": np.ones(20)}), ValueError, r"\(20,\) for the layer 'x'"),
        (
            Extraction({"x": np.ones((20, 2))}, np.ones(20)),
            ValueError,
            r"\(20,\) for the source probabilities",
        ),
    ],
)
def test_what_is_no_extraction_is_refused(X, given, error, message):
    class AtOnce(BaseExtractor):
        def extract(self, X, *, source_proba=False):
            return given

    class Streamed(BaseExtractor):
        def iter_extract(self, X, *, source_proba=False):
            yield slice(None), given

    for kind, verb in ((AtOnce, "return"), (Streamed, "yield")):
        for use in (kind().transform, kind().transform_layers):
            with pytest.raises(error, match=f"{kind.__name__}.*must {verb}.*{message}"):
                use(X)


def test_a_language_model_with_batches_of_its_own(make_model, tokenizers):
    """Of any size, with slices for rows."""
    extractor, texts = texts_and_words(make_model, tokenizers)

    class Own(type(extractor)):
        def iter_batches(self, X, module, device):
            large = extractor.set_params(batch_size=100)
            for rows, inputs in large.iter_batches(X, module, device):
                order = np.argsort(rows)
                tensors = {name: t[order] for name, t in inputs.tensors.items()}
                yield slice(0, len(X)), inputs._replace(tensors=tensors)

    expected = extractor.transform(texts)
    own = Own(**extractor.get_params(deep=False)).set_params(batch_size=3)
    for X in (texts, ["good film", "bad", "a film is a film", "it"]):
        expected = extractor.transform(X)
        for rows, batch in own.iter_extract(X):
            np.testing.assert_allclose(batch.joined, expected[rows], atol=1e-6)
        np.testing.assert_allclose(own.transform(X), expected, atol=1e-6)


def test_a_dataset_of_sentences_is_read_once(make_model, tokenizers):
    extractor, texts = texts_and_words(make_model, tokenizers)
    extractor.set_params(pooling="tokens")
    sentences = [text.split() for text in texts]
    seen = []

    class Read(torch.utils.data.Dataset):
        def __len__(self):
            return len(sentences)

        def __getitem__(self, i):
            seen.append(i)
            return sentences[i]

    for use in (extractor.transform, extractor.transform_layers, extractor.extract):
        seen.clear()
        use(Read())
        assert seen == list(range(len(sentences)))
    for one, other in zip(
        extractor.transform(Read()), extractor.transform(sentences), strict=True
    ):
        np.testing.assert_array_equal(one, other)
