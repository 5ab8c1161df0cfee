"""Reports a run as one self-contained page and as figures in files."""
