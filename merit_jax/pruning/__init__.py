"""Which attention heads of a model can go: scores of heads, and the choice by them (Choi et al., arXiv:2510.13832)."""
