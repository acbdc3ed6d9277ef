"""The summary of a run that a person reads, on the terminal and on the run's page."""

from __future__ import annotations

from hyperlock.experiment.report import Report
from hyperlock.metrics import AROUND, Stage


def rows(report: Report) -> list[tuple[str, str]]:
    """The summary, as pairs of what and how much."""
    metrics = report.metrics
    encrypted = report.security_bits > 0
    after = f"after {report.rounds} rounds"
    found = [("test accuracy", f"{report.accuracy:.4f} {after}")]
    if not report.accuracies:
        found = [("model", f"the clients' alone, and not evaluated here, {after}")]
    if report.tested:
        there = report.accuracy if report.by_sites else metrics["sites/accuracy"]
        found.append(("at the sites", f"{there:.4f} of {report.tested:,} test samples of theirs"))
    if report.guarantee is not None:
        found.append(("privacy", _privacy(report)))
    if report.target is not None:
        reached = report.rounds_to_target
        how = "not reached" if reached is None else f"reached in round {reached}"
        found.append(("target accuracy", f"{report.target:g} {how}"))
    scheme = f"{report.scheme}, {report.security_bits}-bit security"
    stages = [
        stage for stage in report.stage_seconds() if stage != Stage.VERIFY or report.seconds[stage]
    ]
    proved = f"{metrics['bytes/proofs']:,.0f} bytes a round: commitments, roster, witness"
    proofs = [("proofs", proved)] if metrics["bytes/proofs"] else []
    return [
        *found,
        ("seconds, rounds", "  ".join(f"{s} {report.seconds[s]:.2f}" for s in stages)),
        (
            "seconds, around",
            "  ".join(f"{s} {report.seconds[s]:.2f}" for s in AROUND)
            + f"  (whole run {report.wall:.2f})",
        ),
        (
            "upload",
            f"{metrics['bytes/uplink_per_client']:,.0f} bytes per client and round, "
            f"{metrics['bytes/per_parameter']:.2f} per parameter (plain float32: 4)",
        ),
        *proofs,
        ("encryption", scheme if encrypted else "none: the server reads every update"),
        ("secret key held by", report.key_held_by if encrypted else "no one, there is none"),
    ]


def _privacy(report: Report) -> str:
    """What it came to, for whom, in words."""
    guarantee = report.guarantee
    assert guarantee is not None, "under privacy"
    unit = guarantee.mechanism.promise.unit
    known = report.metrics.get("privacy/epsilon")
    if known is None:
        return f"of one {unit}, by noise in every sum; its key holder counts what that costs"
    hidden = report.metrics["privacy/epsilon_hidden"]
    secret = "" if hidden == known else f"; {hidden:.3g} if that is not known"
    server = "; the server sees each update, and nothing is promised there"
    return (
        f"of one {unit}: epsilon {known:.3g} at delta {guarantee.delta:g} for who sees sums and "
        f"knows who took part{secret}{server if report.server_reads else ''}"
    )


def markdown(report: Report) -> str:
    """The summary for the run's page."""
    table = [f"| {name} | {value} |" for name, value in rows(report)]
    return "\n".join(["| | |", "| --- | --- |", *table])


def show(report: Report, where: str) -> None:
    """Print the summary, and where to look at the run."""
    lines = [*rows(report), ("look at it", where)]
    width = max(len(name) for name, _ in lines)
    print(f"\n{report.name}")
    for name, value in lines:
        print(f"  {name:<{width}}  {value}")
