"""Held-out loss, multiple choice by option likelihood, and exact match by greedy decoding."""
