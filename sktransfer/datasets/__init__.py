"""Data and small pre-trained networks that come with the package.

Two functions find the user's own images and texts. Nothing here is downloaded, and
torch is imported only when a network is used.
"""

from sktransfer.datasets._benchmark import load_benchmark
from sktransfer.datasets._dataset import load_dataset
from sktransfer.datasets._files import load_image_folder, load_text_csv
from sktransfer.datasets._paper_tables import load_paper_table
from sktransfer.datasets._zoo import (
    load_zoo,
    load_zoo_cards,
    load_zoo_ground_truth,
    load_zoo_network,
)

__all__ = [
    "load_benchmark",
    "load_paper_table",
    "load_dataset",
    "load_image_folder",
    "load_text_csv",
    "load_zoo",
    "load_zoo_cards",
    "load_zoo_ground_truth",
    "load_zoo_network",
]
