"""First on PYTHONPATH, hides PyTorch from a process: transformers imports it wherever it is, which takes seconds."""

import sys
from importlib.machinery import PathFinder


class WithoutTorch(PathFinder):
    """Finds modules as usual, but for PyTorch."""

    @classmethod
    def find_spec(cls, fullname, path=None, target=None):
        return None if fullname == "torch" else PathFinder.find_spec(fullname, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = WithoutTorch
