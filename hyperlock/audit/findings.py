"""What an audit comes to: figures, pictures and words, on the terminal, in the run's directory and
in its record."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from hyperlock.audit import inversion, membership, pictures
from hyperlock.audit.inversion import Row
from hyperlock.audit.membership import LOSS, PER_CLASS, Membership
from hyperlock.audit.past import Past
from hyperlock.audit.replay import Round
from hyperlock.errors import ConfigError
from hyperlock.experiment.directory import make
from hyperlock.experiment.private import Guarantee
from hyperlock.files import write_whole
from hyperlock.privacy import gaussian
from hyperlock.privacy.canaries import Found
from hyperlock.settings.construct import target
from hyperlock.settings.schema import MlflowTracking
from hyperlock.tracking.mlflow import MlflowTracker, Store

FOLDER = "audit"  # in the run's directory


@dataclass
class Findings:
    """Grows attack by attack.

    Attributes:
        name: the run's, in short.
        metrics: by name, as the run's record has them.
        lines: of the table, what and how much.
        pictures: by name, what draws them.
        notes: what was not shown and why, and whose worst case the rest is.
    """

    name: str
    metrics: dict[str, float] = field(default_factory=dict)
    lines: list[tuple[str, str]] = field(default_factory=list)
    pictures: dict[str, Callable[[], Any]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add_inversion(self, rows: list[Row], played: Round, rounds: int) -> None:
        """Of a round: the originals, the control and the messages."""
        what = f"round {played.number}"
        if played.number > rounds:
            what += ", which would be the next"
        title = f"{self.name}: what each message of {what}, gives away"
        self.pictures["inversion"] = partial(pictures.inversion_figure, rows, title)
        for row in rows[1:]:
            self.metrics[f"audit/inversion_ssim_{row.name}"] = row.median
            meaning = " ".join(row.meaning.split())
            self.lines.append((f"inversion, {meaning}", f"SSIM {row.median:.2f}"))
        self.metrics["audit/inversion_round"] = float(played.number)
        self.notes.append(f"inversion: {inversion.WORST_CASE}")

    def add_membership(self, found: Membership, rounds: int) -> None:
        """Of the model after the last round."""
        first = found.curves[LOSS]
        self.metrics |= {
            "audit/membership_auc": first.area.value,
            "audit/membership_low": first.area.low,
            "audit/membership_high": first.area.high,
            "audit/membership_tpr_at_1_fpr": first.few.value,
            "audit/membership_auc_per_class": found.curves[PER_CLASS].area.value,
            "audit/membership_samples": float(found.samples),
        }
        title = f"{self.name}: does the model after round {rounds} tell its training samples?"
        self.pictures["membership"] = partial(pictures.membership_figure, found, title)
        for attack, curve in found.curves.items():
            self.lines.append((f"membership by {attack}", f"AUC {curve.area}"))
            self.lines.append(("  found at 1% false alarms", str(curve.few)))
        self.notes.append(f"membership: of {found.words}. {membership.WORST_CASE}")

    def add_privacy(self, guarantee: Guarantee, seen: Found) -> None:
        """What canaries in one release showed, beside what is claimed of one."""
        z = guarantee.mechanism.promise.noise
        claimed = gaussian.epsilon(1 / z, guarantee.delta)
        self.metrics |= {"audit/epsilon_lower": seen.epsilon, "audit/epsilon_claimed": claimed}
        verdict = "" if seen.epsilon <= claimed else ": IT IS NOT WHAT IT CLAIMS"
        much = f"epsilon at least {seen.epsilon:.2f}, claimed {claimed:.2f}{verdict}"
        self.lines.append(("canaries, one release", much))
        self.notes.append(
            "canaries: one release without the sampling of clients or samples, which would hide "
            f"more, at delta {guarantee.delta:g}; a lower bound with 95% confidence. Whose worst "
            "case: a client (or sample) that sends the longest update there may be, to who chose "
            "it and sees the sum."
        )
        self.notes.append(
            "under privacy the audit draws its own noise (and records and cohorts, where those "
            "were drawn secretly): a round that might have been, and not the one that was"
        )

    def table(self) -> str:
        """For the terminal."""
        width = max((len(what) for what, _ in self.lines), default=0)
        lines = [f"  {what.ljust(width)}  {much}" for what, much in self.lines]
        return "\n".join([self.name, *lines, "", *(f"  {note}" for note in self.notes)])


def begin(past: Past) -> Findings:
    """Nothing found yet."""
    model = target(past.config.model).rpartition(".")[2]
    clients = past.config.federation.clients
    return Findings(f"{model}-{past.config.encryption.scheme}-{clients}c")


def write(past: Past, found: Findings, recorded: bool) -> Path:
    """Pictures and figures in the run's directory, its owner's alone, and in its record if it has
    one and that is asked; where they are.

    Raises:
        ConfigError: the store does not answer, or the record is not in it.
    """
    # The directory.
    folder = past.directory / FOLDER
    make(folder)
    figures = {name: draw() for name, draw in found.pictures.items()}
    for name, figure in figures.items():
        image = io.BytesIO()
        figure.savefig(image, format="png")
        write_whole(folder / f"{name}.png", image.getbuffer())
    told = {"round": past.rounds, "metrics": found.metrics, "notes": found.notes}
    write_whole(folder / "audit.json", json.dumps(told, indent=2).encode())

    # The record.
    tracker = _record(past) if recorded else None
    if tracker is not None:
        tracker.log(found.metrics, past.rounds)
        tracker.document("audit.json", told)
        for name, figure in figures.items():
            tracker.figure(f"audit_{name}", partial(_same, figure))
    return folder


def _same(figure: Any) -> Any:
    return figure


def _record(past: Past) -> MlflowTracker | None:
    config = past.config
    run_id = past.checkpoint.run_id
    if not run_id or not isinstance(config.tracking, MlflowTracking):
        return None
    store = Store.open(config.paths.root, config.paths.outputs, config.tracking.uri)
    tracker = MlflowTracker.beside(store, run_id)
    if tracker is None:
        problem = "its record is not in this store"
        hint = "tracking.uri=..., as the run had it; or --no-record"
        raise ConfigError("resume", run_id, problem, hint=hint)
    return tracker
