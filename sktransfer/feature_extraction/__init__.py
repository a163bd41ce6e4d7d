"""Features and source probabilities from pre-trained models.

Extractors are stateless scikit-learn transformers. The ones that need an optional
package are imported when they are first asked for, so that importing this package
costs nothing and needs none of them.
"""

from __future__ import annotations

from sktransfer.feature_extraction._base import BaseExtractor, Extraction
from sktransfer.feature_extraction._samples import check_samples, take_samples
from sktransfer.feature_extraction._tokens import flatten_tokens
from sktransfer.utils._optional import lazy_exports

# public name -> the private module that has it, and imports its optional package
_LAZY = {
    "BaseNetworkExtractor": "_network",
    "TimmFeatureExtractor": "_timm",
    "TorchFeatureExtractor": "_torch",
    "TransformersFeatureExtractor": "_transformers",
}

__all__ = [
    "BaseExtractor",
    "BaseNetworkExtractor",
    "Extraction",
    "TimmFeatureExtractor",
    "TorchFeatureExtractor",
    "TransformersFeatureExtractor",
    "check_samples",
    "flatten_tokens",
    "take_samples",
]

__getattr__, __dir__ = lazy_exports(__name__, _LAZY)
