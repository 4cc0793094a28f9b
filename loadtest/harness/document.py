"""RESULTS.md, the chart beside it, and the table of the README."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from . import LOADTEST, ROOT, bars, chart, openloop, report
from .wrk import Run

BASELINE = "nginx"
CHART = "results.svg"
MARKED = re.compile(r"(<!-- bench: begin.*?-->\n).*?(<!-- bench: end -->)", re.DOTALL)
IN_README = ("nginx", "deno", "fnmesh-python", "fnmesh-node", "node-http", "fastify", "workerd", "express",
             "flask-gunicorn")


@dataclass
class Results:
    """All that `bench` measured."""

    command: str
    facts: dict[str, str]
    # How each server was run, by its name in the tables.
    servers: dict[str, str] = field(default_factory=dict)
    # Why a server is not in the tables.
    missing: dict[str, str] = field(default_factory=dict)
    # By connections, then by server: its rounds.
    closed: dict[int, dict[str, list[Run]]] = field(default_factory=dict)
    # By share of the server's peak, then by server.
    open: dict[float, dict[str, openloop.Run]] = field(default_factory=dict)
    repeated: int = 0

    @property
    def main(self) -> dict[str, list[Run]]:
        """The rounds that the chart and the README show."""
        return self.closed.get(64) or next(iter(self.closed.values()), {})

    @property
    def bars(self) -> list[bars.Bar]:
        """Those that could be measured."""
        return [bar for bar in bars.all_bars(self.closed) if bar.met is not None]


def write(results: Results) -> None:
    """Writes all three."""
    (LOADTEST / "RESULTS.md").write_text(render(results))
    (LOADTEST / CHART).write_text(draw(results))
    readme = ROOT / "README.md"
    shown = {name: results.main[name] for name in IN_README if name in results.main}
    readme.write_text(with_table(readme.read_text(), report.summary(shown, BASELINE)))


def with_table(text: str, table: str) -> str:
    """The text with this table between its marks."""
    changed, places = MARKED.subn(lambda marks: f"{marks[1]}{table}\n{marks[2]}", text)
    if places != 1:
        raise SystemExit("README.md has no `<!-- bench: begin -->` and `<!-- bench: end -->`")
    return changed


def draw(results: Results) -> str:
    """Requests per second beside the baseline."""
    rows = []
    for name, rounds in results.main.items():
        shares = report.ratios(rounds, results.main.get(BASELINE))
        speed = median(run.per_second for run in rounds)
        cpu = median(run.cpu_us for run in rounds)
        label = f"{report.ratio(shares)} · {speed:,.0f}/s · {cpu:,.0f} µs"
        rows.append(chart.Bar(name, median(shares) if shares else 0.0, label, name in bars.OURS))
    note = "of nginx answering a constant, 64 connections; requests/s and CPU time per request beside"
    return chart.draw("A merge of two strings over HTTP: requests per second", note, rows)


def render(results: Results) -> str:
    """The text of RESULTS.md."""
    parts = [
        "# Results",
        f"Written by `{results.command}`. {_HOW}",
        f"![Requests per second of all servers beside nginx]({CHART})",
        listed(results.facts),
        "## Bars",
        report.table(["what", "wanted", "measured", "met"], [bar.row for bar in results.bars]),
        "## Servers",
        listed(results.servers),
    ]
    if results.missing:
        parts += ["Not in the tables, or not in all of them, because they could not be installed, started or loaded here:", listed(results.missing)]
    parts += ["## Closed loop", _CLOSED]
    for connections, runs in results.closed.items():
        parts += [f"### {connections} connection{'s' if connections > 1 else ''}"]
        parts += [report.comparison(runs, BASELINE), report.noise(runs)]
    parts.append(f"{results.repeated} runs were repeated because something else took CPU time during them.")
    if results.open:
        parts += ["## Open loop", _OPEN]
        for share, loads in results.open.items():
            parts += [f"### {share:.0%} of each server's own peak", report.open_loads(loads)]
    return "\n\n".join([*parts, "## What is not fair about it", _UNFAIR]) + "\n"


def listed(facts: Mapping[str, str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {name}: {fact}" for name, fact in facts.items())


_HOW = (
    'Every server gets a `POST` with the JSON body `["hello ","world"]` and answers `"hello world"`; only nginx gets a '
    "`GET` and answers with that constant. How it measures: [README.md](README.md#how-it-measures)."
)

_CLOSED = (
    "As many callers as connections, each of which sends its next request when it has the answer to the last one: "
    "this finds the most a server can do. Servers take turns; figures are medians over the rounds, errors are sums, a "
    "ratio is the median of the ratios within each round. CPU, RSS and PSS are of all the server's processes; PSS "
    "divides shared pages among those that share them. Do not read the latencies as what a user would see: a caller "
    "that waits for a slow answer sends nothing meanwhile, so that slow moments are underrepresented. For that see the "
    "open loop."
)

_OPEN = (
    "Calls are due at a constant rate that does not depend on the answers, and latency counts from the moment a call "
    "was due, also when it had to wait for one of the connections. Each server gets a share of its own best median of "
    "the closed loop, so the rates differ: compare how latency grows with load, not one server's milliseconds with "
    "another's at another rate. Over 100 % a queue must grow for as long as the load lasts, and the latencies tell "
    "mostly how long that was; a good server still answers its peak. `no answer` are calls that were still waiting "
    "one second after the last was due; they count in the latencies with the time until then. The generator shares "
    "the machine with the server: `generator late` is its own delay in sending, which is part of the latencies."
)

_UNFAIR = """\
- wrk and the servers share the cores. A server that needs little CPU leaves more to wrk: the fastest are closer to \
each other here than with a load generator on a machine of its own. CPU per request does not have this flaw.
- nginx does less: it parses no JSON and runs no function.
- fnmesh, bun, deno, fastify, node-http, functions-framework-node, workerd and express run user code in one process; \
flask-gunicorn, fastapi-uvicorn, functions-framework-python and express-clustered in one per core. fnmesh's node has \
a thread per core besides.
- flask-gunicorn closes each connection after its answer, as gunicorn's default worker does; flask-dev does so too \
and is made for development only.
- All servers are up during the whole run; the idle ones take memory and caches, hardly any CPU time.
- One tiny function says nothing about larger bodies, slow functions or frameworks' other merits."""
