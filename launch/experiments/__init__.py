"""Experiments: methods over seeds at equal budgets."""
