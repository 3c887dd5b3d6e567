"""Progress that shows nothing."""

from __future__ import annotations

from crystallm.execution.progress import no_progress


def test_a_phase_without_display_takes_any_count():
    with no_progress("generating crystals", None, 3) as advance:
        assert advance(4) is None
