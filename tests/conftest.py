"""Settings of every test: no network, quiet tokenizers. Neighbours (toys.py) import by name (pyproject.toml)."""

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
