"""Language models: in threads, in pickles after use, and with code of their own."""

from __future__ import annotations

import io
import json
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from joblib import Parallel, delayed  # noqa: E402

from sktransfer.feature_extraction import TransformersFeatureExtractor  # noqa: E402


@pytest.fixture(params=["BertModel", "GPT2Model", "T5Model"])
def language(request, make_model, tokenizers):
    """A model of the test's own, and a copy of its tokenizer."""
    kinds = {"BertModel": "encoder", "GPT2Model": "decoder"}
    kind = kinds.get(request.param, "encoder-decoder")
    tokenizer = pickle.loads(pickle.dumps(tokenizers[kind]))
    return make_model(kind, request.param), tokenizer


def make(language, **params):
    model, tokenizer = language
    return TransformersFeatureExtractor(model, tokenizer=tokenizer, **params)


def test_model_can_be_pickled_after_its_inner_layers_were_read(language, texts):
    extractor = make(language, layer=["*", "mean"])
    before = [len(part._forward_hooks) for part in language[0].modules()]
    expected = extractor.transform(texts)
    assert [len(part._forward_hooks) for part in language[0].modules()] == before
    restored = pickle.loads(pickle.dumps(extractor))
    np.testing.assert_array_equal(restored.transform(texts), expected)
    # Twice in a row, for the hooks have to come back.
    np.testing.assert_array_equal(extractor.transform(texts), expected)


def test_model_that_was_used_goes_to_workers(language, texts):
    extractor = make(language, layer=[0, 1])
    expected = extractor.transform(texts)
    (found,) = Parallel(n_jobs=2)([delayed(extractor.transform)(texts)])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_hooks_of_the_user_stay(language, texts):
    model, _ = language
    seen = []
    hook = model.register_forward_hook(lambda *args: seen.append(1))
    make(language, layer=[0, 1]).transform(texts)
    hooks = [key for part in model.modules() for key in part._forward_hooks]
    assert hooks == [hook.id] and (seen or model.config.is_encoder_decoder)


def test_threads_that_share_model_and_tokenizer(language, texts):
    model, _ = language
    model.train()
    longer = [f"{text} {other}" for text in texts for other in texts]
    extractors = [
        make(language, max_length=length, batch_size=3, layer=layer)
        for length, layer in ((8, 1), (64, -1), (10, [0, "mean"]), (64, 2))
    ]
    with pytest.warns(UserWarning, match="were cut off"):
        alone = [extractor.transform(longer) for extractor in extractors]
        together = threading.Barrier(4)

        def run(extractor):
            together.wait(timeout=60)
            return extractor.transform(longer)

        with ThreadPoolExecutor(4) as pool:
            features = list(pool.map(run, extractors))
    for found, expected in zip(features, alone, strict=True):
        np.testing.assert_array_equal(found, expected)
    assert all(part.training for part in model.modules())


CODE = """
from pathlib import Path

from transformers import BertConfig, BertModel

Path(__file__).with_name("code_was_run").touch()


class OwnConfig(BertConfig):
    model_type = "own"


class OwnModel(BertModel):
    config_class = OwnConfig
"""


def test_code_of_a_model_is_never_run_nor_asked_for(
    language, tmp_path, monkeypatch, texts
):
    for part in language:
        part.save_pretrained(tmp_path)
    (tmp_path / "own.py").write_text(CODE)
    config = json.loads((tmp_path / "config.json").read_text())
    config["model_type"] = "own"
    config["auto_map"] = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    monkeypatch.setattr("sys.stdin", io.StringIO("y\ny\ny\ny\n"))
    extractor = TransformersFeatureExtractor(tmp_path)
    for wanted in (False, True):
        with pytest.raises(ValueError, match="needs Python code of its own"):
            extractor.extract(texts, source_proba=wanted)
    assert not list(tmp_path.rglob("code_was_run"))
