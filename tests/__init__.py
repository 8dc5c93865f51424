"""Tests; this is imported before any of them, and so before PyTorch, which then finds what the package sets for it."""

from __future__ import annotations

import yoloprune as yoloprune
