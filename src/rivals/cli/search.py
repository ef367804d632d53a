"""`rivals search` and `rivals serve`."""

from __future__ import annotations

import json
from dataclasses import asdict


def run_search(*, run: str, question: str, k: int, device: str, as_json: bool) -> None:
    """Search a finished run once and print what was found, with the score and rank of every stage."""
    from rich.console import Console
    from rich.text import Text

    from rivals.serve.engine import load_engine

    result = load_engine(run, device=device).search(question, k)
    if as_json:
        print(json.dumps(asdict(result), ensure_ascii=False, indent=2))
        return
    console = Console(highlight=False)
    for note in result.notes:
        console.print(note, markup=False)
    for hit in result.hits:
        stages = ", ".join(
            f"{name} {'-' if stage.score is None else f'{stage.score:.3f}'} (#{stage.rank or '-'})"
            for name, stage in hit.stages.items()
        )
        console.print(f"\n{hit.rank}. {hit.title or hit.id}   {stages}", markup=False, style="bold")
        shown = Text(hit.text[:300] + ("..." if len(hit.text) > 300 else ""))
        for start, end in hit.matched_terms:
            if end <= 300:
                shown.stylize("underline", start, end)
        console.print(shown)
    spent = ", ".join(f"{name} {value:.0f} ms" for name, value in result.milliseconds.items())
    console.print(f"\n{result.candidates} candidates; {spent}", markup=False)


def run_serve(*, run: str, host: str, port: int, api_key: str, device: str) -> None:
    """Serve a finished run until interrupted."""
    from rivals.serve.app import serve
    from rivals.serve.engine import load_engine

    serve(load_engine(run, device=device), host=host, port=port, api_key=api_key or None)
