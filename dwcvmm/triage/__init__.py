"""Triage: what a kept divergence shows."""
