"""Tagging: features of words, ragged labels, one call."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.frozen import FrozenEstimator
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from sktransfer.exceptions import CandidateFailedWarning
from sktransfer.feature_extraction import BaseExtractor, Extraction, flatten_tokens
from sktransfer.linear_model import LogMEClassifier
from sktransfer.metrics import get_scorer, logme_score, loo_log_likelihood_score
from sktransfer.model_selection import ModelSelector, WholeDataset


class Spelling(BaseExtractor):
    """What the letters of a word tell; the layer "noise" tells nothing."""

    gives_tokens = True

    def __init__(self, layer=("letters", "noise")):
        self.layer = layer

    def extract(self, X, *, source_proba=False):
        words = [word for sentence in X for word in sentence]
        rng = np.random.default_rng(0)
        layers = {
            "letters": [[len(w), w.istitle(), w.endswith("s"), 1] for w in words],
            "noise": rng.standard_normal((len(words), 3)),
        }
        wanted = [self.layer] if isinstance(self.layer, str) else self.layer
        return Extraction({k: np.asarray(layers[k], dtype=np.float32) for k in wanted})


@pytest.fixture
def tagged():
    """60 sentences of 0 to 6 words; spelling tells the tag of all but every tenth."""
    rng = np.random.default_rng(0)
    tag = {"Ann": "NAME", "Bob": "NAME", "sees": "VERB", "runs": "VERB", "a": "O"}
    sentences = [rng.choice(list(tag), n).tolist() for n in rng.integers(0, 7, 60)]
    return sentences, [
        [tag[word] if rng.random() < 0.9 else "O" for word in words]
        for words in sentences
    ]


def test_words_of_a_sentence_are_left_out_together(tagged):
    sentences, tags = tagged
    X, y = flatten_tokens(Spelling("letters").transform(sentences), tags)
    lengths = [len(words) for words in sentences]
    by_sentence = np.repeat(np.arange(len(sentences)), lengths)
    expected = loo_log_likelihood_score(X, y, groups=by_sentence)
    assert expected != loo_log_likelihood_score(X, y)
    selector = ModelSelector([("spelling", Spelling())], scoring="loo_log_likelihood")
    selector.fit(sentences, tags)
    assert selector.best_score_ == pytest.approx(expected)
    assert selector.score(sentences, tags) == pytest.approx(expected)
    assert selector.best_estimator_[-1].loo_log_likelihood_ == pytest.approx(expected)
    scorer = get_scorer("loo_log_likelihood")
    assert scorer(Spelling("letters"), sentences, tags) == pytest.approx(expected)
    # Sentences may themselves be grouped, into documents.
    documents = np.arange(len(sentences)) // 6
    expected = loo_log_likelihood_score(X, y, groups=np.repeat(documents, lengths))
    selector.fit(sentences, tags, groups=documents)
    assert selector.best_score_ == pytest.approx(expected)


def test_one_call(tagged):
    sentences, tags = tagged
    selector = ModelSelector([("spelling", Spelling())], scoring=["logme", "h_score"])
    selector.fit(sentences, tags)
    assert selector.ranking_ == ["spelling/letters", "spelling/noise"]
    assert selector.task_ == "classification"
    assert selector.classes_.tolist() == ["NAME", "O", "VERB"]
    X, y = flatten_tokens(Spelling("letters").transform(sentences), tags)
    assert selector.best_score_ == pytest.approx(logme_score(X, y), rel=1e-6)
    assert selector.score(sentences, tags) == pytest.approx(selector.best_score_)


def test_predictions_are_by_sentence(tagged):
    sentences, tags = tagged
    selector = ModelSelector([("spelling", Spelling())]).fit(sentences[:40], tags[:40])
    extractor = Spelling("letters")
    X, y = flatten_tokens(extractor.transform(sentences[:40]), tags[:40])
    head = LogMEClassifier().fit(X, y)
    for words, own in zip(sentences, selector.predict(sentences), strict=True):
        assert len(own) == len(words)
        if words:
            assert own.tolist() == head.predict(*extractor.transform([words])).tolist()
    for words, own in zip(sentences, selector.predict_proba(sentences), strict=True):
        assert own.shape == (len(words), 3)
    assert [len(own) for own in selector.transform(sentences)] == list(
        map(len, sentences)
    )


def letters_of_words(sentences):
    return Spelling("letters").extract(sentences).joined


def test_a_best_candidate_that_is_no_extractor_answers_by_sentence(tagged):
    """One row a word comes out of any transformer; the target says what is wanted."""
    sentences, tags = tagged
    candidates = [
        ("function", FunctionTransformer(letters_of_words)),
        ("noise", Spelling("noise")),
    ]
    selector = ModelSelector(candidates).fit(sentences, tags)
    assert selector.best_name_ == "function"
    expected = ModelSelector([("own", Spelling("letters"))]).fit(sentences, tags)
    for method in ("predict", "predict_proba"):
        found = getattr(selector, method)(sentences)
        for own, other in zip(found, getattr(expected, method)(sentences), strict=True):
            np.testing.assert_array_equal(own, other)
    assert selector.score(sentences, tags) == expected.score(sentences, tags)


@pytest.mark.parametrize("scoring", ["logme", "loo_log_likelihood"])
@pytest.mark.parametrize(
    "extractor",
    [
        FrozenEstimator(Spelling("letters")),
        make_pipeline(
            Spelling("letters"), FunctionTransformer(flatten_tokens), StandardScaler()
        ),
    ],
    ids=["frozen", "pipeline"],
)
def test_inside_other_estimators(tagged, extractor, scoring):
    sentences, tags = tagged
    selector = ModelSelector([("letters", extractor)], scoring=scoring).fit(
        sentences, tags
    )
    predicted, true = map(np.concatenate, (selector.predict(sentences), tags))
    assert np.mean(predicted == true) > 0.8
    score = get_scorer(scoring)(selector.best_extractor_, sentences, tags)
    assert score == pytest.approx(selector.best_score_)


def test_numbers_as_targets(tagged):
    sentences, _ = tagged
    rng = np.random.default_rng(1)
    lengths = [[len(w) + 0.1 * rng.standard_normal() for w in ws] for ws in sentences]
    selector = ModelSelector([("spelling", Spelling())]).fit(sentences, lengths)
    assert selector.task_ == "regression"
    assert selector.best_name_ == "spelling/letters"
    predicted = np.concatenate(selector.predict(sentences))
    np.testing.assert_allclose(predicted, np.concatenate(lengths), atol=0.5)


def test_grid_search(tagged):
    sentences, tags = tagged
    search = GridSearchCV(
        Spelling("noise"),
        {"layer": ["noise", "letters"]},
        scoring=get_scorer("logme"),
        cv=WholeDataset(),
        refit=False,
    ).fit(sentences, tags)
    assert search.best_params_ == {"layer": "letters"}


def test_memory(tagged, tmp_path):
    sentences, tags = tagged
    first, second = (
        ModelSelector([("spelling", Spelling())], memory=str(tmp_path))
        .fit(sentences, tags)
        .results_["logme"]
        for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)


def test_labels_that_do_not_fit(tagged):
    sentences, tags = tagged
    i = next(i for i, words in enumerate(sentences) if len(words) > 1)
    tags = [*tags[:i], tags[i][:-1], *tags[i + 1 :]]
    n_words = len(sentences[i])
    match = f"Sentence {i} has {n_words} words, but {n_words - 1} labels"
    with pytest.raises(ValueError, match=match):
        ModelSelector([("spelling", Spelling())]).fit(sentences, tags)


def test_a_candidate_that_reads_whole_sentences_fails_alone(tagged):
    sentences, tags = tagged
    whole = FunctionTransformer(lambda X: np.array([[len(words)] for words in X]))
    selector = ModelSelector([("whole", whole), ("spelling", Spelling())])
    with pytest.warns(CandidateFailedWarning, match=r"features of shape \(60, 1\)"):
        selector.fit(sentences, tags)
    assert selector.ranking_[-1] == "whole"


def test_language_model(tagged):
    transformers = pytest.importorskip("transformers")
    from tokenizers import Tokenizer, models, pre_tokenizers

    from sktransfer.feature_extraction import TransformersFeatureExtractor

    sentences, tags = tagged
    vocabulary = ["[PAD]", "[UNK]", "Ann", "Bob", "see", "run", "##s", "a"]
    backend = Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(vocabulary)}, unk_token="[UNK]")
    )
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]"
    )
    config = transformers.BertConfig(
        vocab_size=len(vocabulary),
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
    )
    extractor = TransformersFeatureExtractor(
        transformers.BertModel(config), tokenizer=tokenizer, pooling="tokens", layer="*"
    )
    selector = ModelSelector([("bert", extractor)]).fit(sentences, tags)
    assert selector.results_["layer"].tolist() == ["0", "1", "2"]
    assert [len(own) for own in selector.predict(sentences)] == list(map(len, tags))
    assert isinstance(selector.best_estimator_[-1], LogMEClassifier)
