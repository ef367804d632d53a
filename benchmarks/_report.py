"""The readable side: one table a case, its checks, and its targets with what was measured."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

_MARKS = {True: "[green]met[/]", False: "[red]not met[/]", None: "[yellow]not measured[/]"}


def print_machine(console: Console, machine: dict[str, Any]) -> None:
    """Print the machine, and a warning if it is busy."""
    units = [flag for flag, there in machine["flags"].items() if there]
    units += ["amx (torch)"] if machine["amx_usable"] and not machine["flags"]["amx_bf16"] else []
    console.print(
        f"[bold]{machine['cpu']}[/], {machine['cores']} cores, {machine['memory_gib']} GiB, {machine['system']}"
    )
    console.print(f"  units: {', '.join(units) or 'none known'}; load average {machine['load_average']}")
    console.print("  " + ", ".join(f"{name} {number}" for name, number in machine["versions"].items()))
    if not machine["quiet"]:
        console.print(
            "[yellow]warning: the machine is busy (load average above 1.5 or not known); do not quote these times[/]"
        )


def print_case(console: Console, name: str, figures: dict[str, Any]) -> None:
    """Print the figures of one case."""
    wall = f"wall, {figures['wall_threads']} threads"
    table = Table(title=f"{name}: {figures['what']}", title_justify="left", title_style="bold")
    for column in (
        "",
        "CPU, 1 thread",
        wall,
        figures["unit"] + " (CPU)",
        "over ours CPU / wall",
        "% fp32 / bf16",
        "MiB",
    ):
        table.add_column(column, justify="left" if not column else "right")
    for variant, values in figures["variants"].items():
        ratios = " / ".join(_ratio(values[kind]["over_ours"]) for kind in ("cpu", "wall"))
        table.add_row(
            variant,
            _seconds(values["cpu"]["seconds"]),
            _seconds(values["wall"]["seconds"]),
            f"{values['cpu']['rate']:,.0f}",
            "-" if variant == figures["ours"] else ratios,
            _shares(values["cpu"], figures["matmul_gflops"]["cpu"]),
            "-" if values.get("memory_mib") is None else f"{values['memory_mib']:,.0f}",
        )
    console.print(table)
    rates = figures["matmul_gflops"]
    for kind, label in (("cpu", "1 thread"), ("wall", f"{figures['wall_threads']} threads")):
        told = ", ".join(f"{product} {rate:,.0f}" for product, rate in rates[kind].items())
        console.print(f"  machine's product, {label}, GFLOP/s: {told}")
    if figures["checks"]:
        console.print("  " + ", ".join(f"{check} {value:.6g}" for check, value in figures["checks"].items()))
    for note in figures["notes"]:
        console.print(f"  note: {note}")
    for peer in figures["missing_peers"]:
        console.print(f"  [yellow]{peer} is not installed, so it was left out[/]")
    for target in figures["targets"]:
        sign = ">=" if target["at_least"] else "<="
        told = ", ".join(f"{kind} {value:.3g}" for kind, value in target["values"].items()) or "no figure"
        console.print(f"  target: {target['text']} ({sign} {target['limit']:g}): {told}: {_MARKS[target['met']]}")
    if not figures["targets"]:
        console.print("  target: none set")
    console.print()


def _seconds(spread: dict[str, float]) -> str:
    middle = spread["median"]
    unit, factor = ("s", 1.0) if middle >= 1 else ("ms", 1e3)
    return f"{middle * factor:.3g} {unit} [{spread['min'] * factor:.3g}, {spread['max'] * factor:.3g}]".replace(
        "[", r"\["
    )


def _ratio(spread: dict[str, float]) -> str:
    return rf"{spread['median']:.2f}x \[{spread['min']:.2f}, {spread['max']:.2f}]"


def _shares(values: dict[str, Any], rates: dict[str, float]) -> str:
    """Return the share of the machine's product, or the time in such products where the work has no FLOP count."""
    if "gflops" not in values:
        return f"= {values['float32_products']:.1f} products"
    return " / ".join(
        f"{100 * values['gflops'] / rates[k]:.0f} %" if k in rates else "-" for k in ("float32", "bfloat16")
    )
