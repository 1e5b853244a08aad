"""Results of `benchmarks.run` as tables in a page of the documentation."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

# Of the tables of each device: between what lines of a page they are.
MARKERS = {
    "cpu": ("<!-- begin: benchmarks.run -->", "<!-- end: benchmarks.run -->"),
    "gpu": (
        "<!-- begin: benchmarks.run --device=gpu -->",
        "<!-- end: benchmarks.run --device=gpu -->",
    ),
}
# So many cores in use by others are noise; with more, a result is marked.
QUIET = 0.2


def surroundings(page: pathlib.Path, device: str) -> tuple[str, str]:
    """What a page has up to, and from, the markers between which a device's tables are.

    Raises:
      ValueError: if there is no page, or it has not each marker once, in this order.
    """
    if not page.is_file():
        raise ValueError(f"there is no {page}; copy docs/performance.md there")
    whole, (begin, end) = page.read_text(), MARKERS[device]
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise ValueError(f"{page} must have the lines {begin} and {end}, once each, in this order")
    return whole.split(begin)[0] + begin, end + whole.split(end)[1]


def write(page: pathlib.Path, text: str, device: str) -> None:
    """Puts a text between the two markers that a page has for a device, and leaves the rest.

    Raises:
      ValueError: as `surroundings` does.
    """
    before, after = surroundings(page, device)
    page.write_text(f"{before}\n\n{text}\n\n{after}")


def processor(row: Mapping[str, Any]) -> str:
    """What a result was computed on: the accelerator, or else the CPU."""
    return row["ours"].get("device", row["machine"]["cpu"])


def sections(results: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]]) -> str:
    """Everything that was measured, as Markdown, each processor's under a heading of its own.

    Args:
      results: by processor, what `tables` takes.
    """
    return "\n\n".join(f"### {name}\n\n{tables(each)}" for name, each in results.items())


def tables(results: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """What was measured on a processor.

    Args:
      results: rows by comparison, as `benchmarks.run` makes them.
    """
    races = [row for name, rows in results.items() if name != "cold_start" for row in rows]
    parts = []
    if races:
        parts.append(_table(_RACE, [_race(row) for row in races]))
    if cold := results.get("cold_start"):
        ways = [way for way in _COLD if all(way in row["median_seconds"] for row in cold)]
        heads = ["first step of", *(_COLD[way] for way in ways)]
        parts.append(_table(heads, [_cold(row, ways) for row in cold]))
    machines = {_machine(row): None for rows in results.values() for row in rows}
    parts.append("\n".join(f"- {text}" for text in machines))
    return "\n\n".join(parts)


_RACE = (
    *("work", "peer", "maemem, a second", "peer, a second", "times as fast (from, to)"),
    *("peak memory, GiB", "parameters", "share of ceiling", "ceilings: GFLOP/s, GB/s"),
)
_COLD = {
    "empty": "compiled",
    "filled": "from the cache",
    "peer": "peer",
    "memory": "as much memory, filled once",
}


def _race(row: Mapping[str, Any]) -> list[str]:
    ours, peer, ratio, ceiling = row["ours"], row["peer"], row["ratio"], row["ceilings"]
    rates = row["per_second"]
    shares = row.get("share_of_gflop_per_second") or row.get("share_of_gb_per_second")
    return [
        _name(row),
        f"{row['versus']}, {_versions(peer['versions'])}",
        *(f"{number(rates[side])} {row['unit']}" for side in ("ours", "peer")),
        f"**{number(ratio['median'])}** ({number(ratio['min'])}, {number(ratio['max'])})",
        f"{number(ours['peak_gib'])}, {number(peer['peak_gib'])}",
        f"{ours['parameters']:,}, {peer['parameters']:,}" if "parameters" in ours else "",
        f"{shares['ours']:.1%}, {shares['peer']:.1%}" if shares else "",
        f"{number(ceiling['gflop_per_second'])}, {number(ceiling['gb_per_second'])}",
    ]


def _cold(row: Mapping[str, Any], ways: Sequence[str]) -> list[str]:
    return [_name(row), *(f"{row['median_seconds'][way]:.1f} s" for way in ways)]


def _name(row: Mapping[str, Any]) -> str:
    quiet = all(cores is None or cores <= QUIET for cores in row["others_cores"])
    return row["work_name"] if quiet else f"{row['work_name']} (**on a busy machine**)"


def _versions(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _machine(row: Mapping[str, Any]) -> str:
    return (
        f"{row['name']}: {row['date']}, commit {row['commit']}, "
        f"{row['threads']} of {row['machine']['cores']} cores, {row['repeats']} turns; "
        f"{_versions(row['ours']['versions'])}"
    )


def number(value: float) -> str:
    """Three figures, and thousands apart."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
