"""Prompt anchors: decisions by hand and by loops, words read back, behaviour."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from sktransfer.anchors import AnchorClassifier, nearest_words, word_embeddings
from sktransfer.linear_model import LogMEClassifier
from sktransfer.model_selection import WholeDataset

VOCABULARY = ["good", "nice", "bad", "poor", "long"]
TEXTS = ["good good film", "poor and bad", "long but nice", "a long , bad film"]
LABELS = ["positive", "negative", "positive", "negative"]
WORDS = {"positive": ["good", "nice"], "negative": ["bad", "poor"]}


@pytest.fixture
def rng(global_random_seed):
    return np.random.default_rng(global_random_seed)


@pytest.fixture
def encoder():
    """Counts of five words: embeddings that can be worked out by hand."""
    return CountVectorizer(vocabulary=VOCABULARY)


def by_loops(anchors, X, normalize):
    """Mean inner product with the words of each class, one pair at a time."""

    def unit(v):
        return v / np.sqrt(sum(v * v)) if normalize else v

    scores = np.zeros((len(X), len(anchors)))
    for i, x in enumerate(X):
        for c, label in enumerate(sorted(anchors)):
            words = anchors[label]
            scores[i, c] = sum(sum(unit(x) * unit(w)) for w in words) / len(words)
    return scores


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("n_words", [[1, 1], [3, 1], [2, 5, 1, 4]])
def test_scores_are_mean_inner_products(rng, n_words, normalize):
    anchors = {10 - c: rng.normal(size=(n, 6)) for c, n in enumerate(n_words)}
    X = rng.normal(size=(20, 6))
    model = AnchorClassifier(anchors, normalize=normalize).fit(X)
    scores = by_loops(anchors, X, normalize)
    np.testing.assert_array_equal(model.classes_, sorted(anchors))
    np.testing.assert_array_equal(
        model.predict(X), np.array(sorted(anchors))[scores.argmax(axis=1)]
    )
    odds = np.exp(scores)
    np.testing.assert_allclose(
        model.predict_proba(X), odds / odds.sum(axis=1, keepdims=True)
    )
    if len(anchors) == 2:
        scores = scores[:, 1] - scores[:, 0]
    np.testing.assert_allclose(model.decision_function(X), scores, atol=1e-12)


def test_by_hand(encoder):
    model = AnchorClassifier(WORDS, encoder=encoder).fit(TEXTS)
    half = [[0, 0, 0.5, 0.5, 0], [0.5, 0.5, 0, 0, 0]]
    np.testing.assert_array_equal(model.coef_, half)
    np.testing.assert_array_equal(model.decision_function(TEXTS), [1, -1, 0.5, -0.5])
    assert model.predict(TEXTS).tolist() == LABELS
    assert model.score(TEXTS, LABELS) == 1
    assert model.predict(["nothing known"]) == ["negative"]  # a tie


def test_normalize_takes_length_away():
    anchors = {"long": [[9.0, 9.0]], "short": [[0.0, 1.0]]}
    X = [[0.1, 1.0], [0.0, 0.0]]
    assert AnchorClassifier(anchors).fit().predict(X).tolist() == ["long", "long"]
    model = AnchorClassifier(anchors, normalize=True).fit()
    assert model.predict(X).tolist() == ["short", "long"]


@pytest.mark.parametrize("unit", [1e-30, 1e-7, 1e30])
@pytest.mark.parametrize("kind", [np.asarray, csr_array])
def test_cosines_have_no_unit(rng, unit, kind):
    X = rng.normal(size=(6, 4)).astype(np.float32)
    X[5] = 0
    small = kind((unit * X).astype(np.float32))
    anchors = {"a": X[:1], "b": X[1:3], "c": X[3]}
    scaled = {"a": small[:1], "b": small[1:3], "c": unit * X[3]}
    expected = AnchorClassifier(anchors, normalize=True).fit().predict_proba(X)
    proba = AnchorClassifier(scaled, normalize=True).fit().predict_proba(small)
    np.testing.assert_allclose(proba, expected, rtol=1e-5)
    words = list("abcdef")
    nearest, cosines = nearest_words(unit * X[:3], small, words, k=3)
    expected_words, expected = nearest_words(X[:3], X, words, k=3)
    np.testing.assert_array_equal(nearest, expected_words)
    np.testing.assert_allclose(cosines, expected, rtol=1e-5)


def test_ways_to_give_anchors(encoder):
    embeddings = encoder.transform(["good", "bad"])
    good, bad = embeddings.toarray().astype(float)
    expected = AnchorClassifier({"a": "bad", "b": "good"}, encoder=encoder).fit()
    for anchors in [
        {"a": ["bad"], "b": ("good",)},
        {"b": np.array(["good"]), "a": "bad"},
        {"a": bad, "b": good},
        {"a": [bad.tolist()], "b": good[None]},
        {"a": embeddings[[1]], "b": "good"},
    ]:
        model = AnchorClassifier(anchors, encoder=encoder).fit()
        np.testing.assert_array_equal(model.coef_, expected.coef_)
        assert model.classes_.tolist() == ["a", "b"]


def test_encoder_that_learns():
    model = AnchorClassifier(WORDS, encoder=TfidfVectorizer()).fit(TEXTS, LABELS)
    assert "good" in model.encoder_.vocabulary_
    assert not hasattr(model.encoder, "vocabulary_")
    assert model.predict(TEXTS).tolist() == LABELS
    fitted = FrozenEstimator(TfidfVectorizer().fit(TEXTS))
    other = AnchorClassifier(WORDS, encoder=fitted).fit()
    np.testing.assert_array_equal(other.coef_, model.coef_)
    assert other.encoder_ is fitted


def test_kinds_of_embeddings(rng):
    X = rng.normal(size=(8, 3))
    anchors = {0: X[:2], 1: X[2:3], 2: X[3:6]}
    expected = AnchorClassifier(anchors).fit(X).decision_function(X)
    model = AnchorClassifier(anchors).fit(csr_array(X))
    np.testing.assert_allclose(model.decision_function(csr_array(X)), expected)
    torch = pytest.importorskip("torch")
    tensors = {label: torch.from_numpy(words) for label, words in anchors.items()}
    model = AnchorClassifier(tensors).fit()
    np.testing.assert_allclose(model.decision_function(X), expected)


def test_feature_names(rng):
    pd = pytest.importorskip("pandas")
    frame = pd.DataFrame(rng.normal(size=(4, 2)), columns=["a", "b"])
    model = AnchorClassifier({0: [[1.0, 0]], 1: [[0, 1.0]]}).fit(frame)
    assert model.feature_names_in_.tolist() == ["a", "b"]
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[["b", "a"]])


@pytest.mark.parametrize(
    ("anchors", "message"),
    [
        (["good", "bad"], "'anchors' parameter of AnchorClassifier must be an instan"),
        ({"positive": ["good"]}, r"at least 2 classes. Got \['positive'\]"),
        ({"a": ["good"], 1: ["bad"]}, "Mix of label input types"),
        ({"a": ["good"], "b": []}, "The anchors of class 'b' are empty"),
        ({"a": ["good"], "b": np.empty((0, 5))}, "The anchors of class 'b' are empty"),
        ({"a": np.eye(5)[:2], "b": np.eye(4)}, r"same .* Got {'a': 5, 'b': 4}"),
        ({"a": np.eye(5), "b": [[np.nan] * 5]}, "of class 'b' contains NaN"),
    ],
)
def test_anchors_that_make_no_sense(encoder, anchors, message):
    with pytest.raises(ValueError, match=message):
        AnchorClassifier(anchors, encoder=encoder).fit(TEXTS)


def test_words_need_an_encoder():
    with pytest.raises(ValueError, match="'positive' are words, which need the 'enco"):
        AnchorClassifier(WORDS).fit(np.eye(3))
    with pytest.raises(ValueError, match="'encoder' parameter of AnchorClassifier mus"):
        AnchorClassifier(WORDS, encoder="bert").fit(TEXTS)


def test_widths_that_differ(encoder):
    anchors = {"a": np.eye(4)[:1], "b": np.eye(4)[1:]}
    with pytest.raises(ValueError, match="samples have 3 .* of the anchors have 4"):
        AnchorClassifier(anchors).fit(np.eye(3))
    for X in (None, np.eye(4)):
        with pytest.raises(ValueError, match="X has 3 features, but AnchorClassif"):
            AnchorClassifier(anchors).fit(X).predict(np.eye(3))
    with pytest.raises(ValueError, match="samples have 5 .* of the anchors have 4"):
        AnchorClassifier(anchors, encoder=encoder).fit(TEXTS).predict(TEXTS)


def test_labels_are_checked_for_anchors(encoder):
    model = AnchorClassifier(WORDS, encoder=encoder)
    model.fit(TEXTS[:1], LABELS[:1])  # a class without samples is no harm
    assert model.classes_.tolist() == ["negative", "positive"]
    with pytest.raises(ValueError, match=r"no anchors: \['neutral'\]; .*\['negative',"):
        model.fit(TEXTS, [*LABELS[:3], "neutral"])
    with pytest.raises(ValueError, match="inconsistent numbers of samples"):
        model.fit(TEXTS, LABELS[:2])
    with pytest.raises(ValueError, match="Unknown label type"):
        model.fit(TEXTS, [0.1, 0.2, 0.3, 0.4])


def test_clone_and_pickle(encoder):
    model = AnchorClassifier(WORDS, encoder=encoder, normalize=True).fit(TEXTS)
    restored = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(
        restored.decision_function(TEXTS), model.decision_function(TEXTS)
    )
    copy = clone(model)
    with pytest.raises(NotFittedError):
        copy.predict(TEXTS)
    assert copy.get_params()["anchors"] == WORDS
    assert not hasattr(copy, "coef_")
    assert copy.set_params(encoder__binary=True).encoder.binary


def test_grid_of_words(encoder):
    y = ["p", "n", "p", "n"]
    grid = [{"n": [n], "p": [p]} for n in ("long", "bad") for p in ("nice", "good")]
    search = GridSearchCV(
        AnchorClassifier(WORDS, encoder=encoder), {"anchors": grid}, cv=WholeDataset()
    ).fit(["good good film", "poor and bad", "good but long", "a long , bad film"], y)
    # Ties go to "n".
    assert search.cv_results_["mean_test_score"].tolist() == [0.5, 0.75, 0.5, 1]
    assert search.best_params_["anchors"] == {"n": ["bad"], "p": ["good"]}


def test_last_step_of_a_pipeline(rng):
    X = rng.normal(size=(30, 2)) + 5
    y = (X[:, 0] > X[:, 1]).astype(int)
    anchors = {0: [[0.0, 1.0]], 1: [[1.0, 0.0]]}
    pipeline = make_pipeline(StandardScaler(with_std=False), AnchorClassifier(anchors))
    centred = X - X.mean(axis=0)
    expected = (centred[:, 0] > centred[:, 1]).mean()
    assert pipeline.fit(X, y).predict(X).mean() == pytest.approx(expected)
    steps = Pipeline([("none", "passthrough"), ("anchor", AnchorClassifier(anchors))])
    assert steps.fit(X, y).score(X, y) == 1


class TestNearestWords:
    def test_by_loops(self, rng):
        coef, E = rng.normal(size=(3, 5)), rng.normal(size=(40, 5))
        words = [f"word{i}" for i in range(40)]
        nearest, similarities = nearest_words(coef, E, words, k=4)
        for c in range(3):
            cosines = [
                float(coef[c] @ e / np.linalg.norm(coef[c]) / np.linalg.norm(e))
                for e in E
            ]
            order = sorted(range(40), key=lambda i: -cosines[i])[:4]
            assert nearest[c].tolist() == [words[i] for i in order]
            np.testing.assert_allclose(similarities[c], [cosines[i] for i in order])

    def test_lengths_do_not_count(self, rng):
        coef, E, words = (
            rng.normal(size=(2, 3)),
            rng.normal(size=(9, 3)),
            [*"abcdefgh "],
        )
        scales = rng.uniform(0.1, 10, size=(9, 1))
        first = nearest_words(coef, E, words)
        second = nearest_words(7 * coef, scales * E, words)
        np.testing.assert_array_equal(first[0], second[0])
        np.testing.assert_allclose(first[1], second[1])
        assert first[0].shape == (2, 9)  # all there are

    def test_one_anchor(self):
        nearest, similarities = nearest_words([1.0, 0], np.eye(2), ["x", "y"], k=1)
        assert nearest.tolist() == [["x"]]
        assert similarities.tolist() == [[1.0]]
        assert nearest_words([0.0, 0], np.eye(2), ["x", "y"])[1].tolist() == [[0, 0]]

    def test_virtual_anchors_come_back_to_the_words_they_are_made_of(self, encoder):
        model = LogMEClassifier().fit(encoder.transform(TEXTS).toarray(), LABELS)
        E = encoder.transform(VOCABULARY)
        nearest, _ = nearest_words(model.coef_, E, VOCABULARY, k=1)
        assert nearest[0] in WORDS["negative"]
        assert nearest[1] in WORDS["positive"]

    def test_errors(self):
        with pytest.raises(ValueError, match="coef has 3 features, but word_emb.* 2"):
            nearest_words(np.eye(3), np.eye(2), ["a", "b"])
        with pytest.raises(ValueError, match="inconsistent numbers of samples"):
            nearest_words(np.eye(2), np.eye(2), ["a"])
        with pytest.raises(ValueError, match="'k' parameter of nearest_words must be"):
            nearest_words(np.eye(2), np.eye(2), ["a", "b"], k=0)


@pytest.fixture(scope="module")
def language_model():
    """A tiny BERT whose tokenizer splits words, and the embeddings that go into it."""
    pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
    from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

    from sktransfer.feature_extraction import TransformersFeatureExtractor

    tokens = ["[PAD]", "[UNK]", "good", "bad", "film", "##s", "##ly", "2", ",", "s"]
    vocabulary = {token: i for i, token in enumerate(tokens)}
    backend = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    )
    sizes = {"hidden_size": 8, "num_attention_heads": 2, "intermediate_size": 8}
    config = BertConfig(vocab_size=len(tokens), num_hidden_layers=1, **sizes)
    model = BertModel(config)
    matrix = model.embeddings.word_embeddings.weight.detach().numpy()
    rows = {token: matrix[i] for token, i in vocabulary.items()}
    return TransformersFeatureExtractor(model, tokenizer=tokenizer), rows


class TestWordEmbeddings:
    def test_of_the_encoder(self, language_model):
        extractor, _ = language_model
        words, embeddings = word_embeddings(extractor, ("films", "Good"))
        assert words == ["films", "Good"]
        np.testing.assert_array_equal(embeddings, extractor.transform(words))

    def test_of_the_input(self, language_model):
        extractor, rows = language_model
        words = ["Good", "films", "badly"]
        for source in (extractor, FrozenEstimator(extractor)):
            _, embeddings = word_embeddings(source, words, source="input")
            expected = [
                rows["good"],
                (rows["film"] + rows["##s"]) / 2,
                (rows["bad"] + rows["##ly"]) / 2,
            ]
            np.testing.assert_allclose(embeddings, expected, rtol=1e-6)

    def test_vocabulary(self, language_model):
        extractor, rows = language_model
        words, embeddings = word_embeddings(extractor, source="input")
        assert words == ["bad", "film", "good", "s"]
        np.testing.assert_array_equal(embeddings, [rows[word] for word in words])
        words, embeddings = word_embeddings(extractor)
        np.testing.assert_allclose(
            embeddings, extractor.transform(["bad", "film", "good", "s"]), atol=1e-6
        )

    @pytest.mark.parametrize("word", ["xylophone", ""])
    def test_words_that_the_model_does_not_know(self, language_model, word):
        with pytest.raises(ValueError, match=f"no input embedding of .* '{word}'"):
            word_embeddings(language_model[0], ["good", word], source="input")

    def test_other_encoders(self, encoder):
        _, embeddings = word_embeddings(encoder, ["good", "bad"])
        np.testing.assert_array_equal(embeddings.toarray(), np.eye(5)[[0, 2]])
        for options in ({}, {"words": ["good"], "source": "input"}):
            with pytest.raises(TypeError, match="TransformersF.* type CountVectorizer"):
                word_embeddings(encoder, **options)

    def test_anchors_out_of_the_input(self, language_model):
        extractor, rows = language_model
        _, embeddings = word_embeddings(extractor, ["good", "bad"], source="input")
        anchors = dict(zip([1, 0], embeddings, strict=True))
        model = AnchorClassifier(anchors, encoder=extractor).fit()
        texts = ["good films", "bad , bad"]
        scores = extractor.transform(texts) @ (rows["good"] - rows["bad"])
        np.testing.assert_allclose(model.decision_function(texts), scores, atol=1e-5)
