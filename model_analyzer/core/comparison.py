"""The same phases on several GPU types, side by side, and what an inference costs on each."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from model_analyzer.core.hardware import charged, measured_on, shown
from model_analyzer.core.measurement import Measurement

# GPU type, or words of it -> price of an hour of one GPU (or MIG instance), in a currency of the user's choice.
Prices = Mapping[str, float]

SECONDS_AN_HOUR = 3600


@dataclass(frozen=True, slots=True)
class Compared:
    """A phase on one GPU type.

    gpu_type: "" where unknown. gpus: how many it is charged with. cost: of a million inferences, in the currency of the
    prices; None: `no_cost` says why.
    """

    measurement: Measurement
    gpu_type: str
    gpus: int
    cost: float | None
    no_cost: str = ""


def compare(measurements: Iterable[Measurement], prices: Prices, order: Sequence[str] = ()) -> list[Compared]:
    """Equal phases together, in order of their first appearance; within them the GPU types in `order`.

    Phases are equal in what was asked of the model, whatever the server was: their ids may differ between clusters.
    """
    rows: dict[tuple[Any, ...], list[Compared]] = {}
    for measurement in measurements:
        rows.setdefault(_content(measurement), []).append(_compared(measurement, prices))
    rank = {gpu_type: n for n, gpu_type in enumerate(order)}
    return [row for equal in rows.values() for row in sorted(equal, key=lambda r: rank.get(r.gpu_type, len(rank)))]


def _content(m: Measurement) -> tuple[Any, ...]:
    phase = m.phase
    return (
        phase.variant.model,
        phase.variant.overrides_json,
        phase.batch_size,
        phase.load,
        phase.protocol,
        phase.call,
        phase.source,
    )


def _compared(m: Measurement, prices: Prices) -> Compared:
    cost, why = cost_per_million(m, prices)
    return Compared(m, shown(measured_on(m)), len(charged(m)), cost, why)


def cost_per_million(m: Measurement, prices: Prices) -> tuple[float | None, str]:
    """Price of the hours that the phase's GPUs take for a million inferences; None and why not.

    price per GPU-hour, summed over the GPUs / 3600 s / throughput (infer/s) x 1,000,000.
    """
    throughput = m.values.get("perf_throughput")
    if not throughput or m.status == "failed":
        return None, "no throughput"
    gpus = charged(m)
    if not gpus:
        return None, "it is not known which GPUs were used"
    total = 0.0
    for gpu_type in gpus.values():
        price, why = price_of(gpu_type, prices)
        if price is None:
            return None, why
        total += price
    return total / SECONDS_AN_HOUR / throughput * 1_000_000, ""


def price_of(gpu_type: str, prices: Prices) -> tuple[float | None, str]:
    """The price of the key with the most words, all of which are whole words of the type; None and why not.

    A MIG instance is no whole GPU: its key has to name the profile, too ("A100 MIG 1g.10gb").
    """
    if not gpu_type:
        return None, "the GPU type is unknown: no DCGM exporter was read"
    words = _words(gpu_type)
    needed = words[words.index("mig") :] if "mig" in words else []
    fitting = [key for key in prices if set(needed) <= set(_words(key)) <= set(words) and _words(key)]
    if not fitting:
        what = f"no price of {gpu_type} in gpu_prices"
        return None, f"{what}: a MIG instance needs a key with its profile" if needed else what
    return prices[max(fitting, key=lambda key: (len(_words(key)), len(key)))], ""


def _words(text: str) -> list[str]:
    """`NVIDIA A100-SXM4-80GB` as nvidia, a100, sxm4, 80gb."""
    return [word for word in re.split(r"[\s_-]+", text.lower()) if word]
