"""MERIT: conflict-aware splitting and one-shot weight merging (Choi & Kim, ICML 2026, arXiv:2606.01717)."""
