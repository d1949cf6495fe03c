"""The page of a pretraining run, from the plain data of its summary."""

from __future__ import annotations

from collections.abc import Sequence

from puna.artifact import format_bytes
from puna.flows.pretrain_curves import learning
from puna.flows.pretrain_told import flop_rate, sampled
from puna.flows.tune_report_costs import cost, lineage, repeat
from puna.flows.tune_report_sections import asked
from puna.flows.tune_report_told import (
    Told,
    absent,
    date,
    fact,
    listing,
    mapping,
    mappings,
    text,
)
from puna.report import (
    Cell,
    Details,
    KeyValues,
    Page,
    Paragraph,
    Part,
    Section,
    Table,
    Tile,
    Tiles,
    Verdict,
)
from puna.report.words import (
    MISSING,
    count,
    duration,
    energy,
    finite,
    mass,
    number,
    percent,
    plural,
)

SHOWN_EARLY = 3  # samples of the first steps that stand open; the rest is folded away


def pretrain_page(summary: Told) -> Page:
    """The page of one pretraining run.

    Args:
        summary: What RUN/summary.json holds: `title`, `asked` (the recipe), `command`, `model`,
            `data`, `consumed`, `history`, `evaluations`, `held_out`, `best_step`, `training`,
            `events`, `samples`, `speed`, `memory`, `ledger`, `lineage`, `machine`, `finished`,
            `notes`. Whatever is absent, empty or not finite is shown as such.
    """
    model = mapping(summary, "model")
    about = [f"{count(model.get('parameters'))} parameters" if model else "", model.get("name")]
    about.append(date(summary.get("finished")))
    sections = (
        asked(summary),
        data(summary),
        learning(summary),
        samples(summary),
        events(summary),
        speed(summary),
        memory(summary),
        cost(summary),
        lineage(summary),
        repeat(summary),
    )
    return Page(
        title=str(summary.get("title") or "A pretraining run"),
        subtitle=" · ".join(str(word) for word in about if word),
        eyebrow="Puna · pretraining report",
        opening=_opening(summary),
        sections=sections,
        foot="Written by puna. Bits per byte are of UTF-8 text, so that models with other "
        "vocabularies can be compared.",
    )


def _opening(summary: Told) -> tuple[Part, ...]:
    notes = [Paragraph(str(note), "even") for note in listing(summary, "notes")]
    return (_verdict(summary), _tiles(summary), *notes)


def _verdict(summary: Told) -> Verdict:
    """What is known of the model, and no more: there is nothing to hold it against."""
    training, found = mapping(summary, "training"), mapping(summary, "held_out")
    seen = f"{count(training.get('tokens'))} tokens in {number(training.get('steps'))} steps"
    bits, loss = finite(found.get("bits_per_byte")), finite(found.get("validation_loss"))
    if bits is None or loss is None:
        last = [entry.get("loss") for entry in mappings(summary, "history")][-1:]
        said = f"The last step's training loss was {number(*last)} nats per token." if last else ""
        return Verdict("even", "Not judged", f"It read {seen}. {said}".strip())
    return Verdict(
        "plain",
        "Raised",
        f"After {seen} it takes {number(bits)} bits for a byte of text that it has not seen.",
        f"That is {number(loss)} nats per token of its vocabulary. Lower is better; 8 bits would "
        "be no compression at all.",
    )


def _tiles(summary: Told) -> Tiles:
    total, speed_ = mapping(mapping(summary, "ledger"), "total"), mapping(summary, "speed")
    source = str(total.get("source", ""))
    how = "estimated" if "estimate" in source else f"by {source.partition(' ')[0]}"
    model = mapping(summary, "model")
    return Tiles(
        (
            Tile("Parameters", count(model.get("parameters")), "from fresh weights"),
            Tile("Time", duration(total.get("wall_seconds")), "all stages" if total else ""),
            Tile(
                "Speed",
                f"{count(speed_.get('tokens_per_second'))} tokens/s",
                f"{percent(speed_.get('utilisation'))} utilisation" if speed_ else "",
            ),
            Tile("Energy", energy(total.get("energy_joules")), how if total else ""),
            Tile("CO\u2082e", mass(total.get("co2e_grams")), how if total else ""),
        )
    )


def data(summary: Told) -> Section:
    """The sources: what they hold, what was read of them, what was held out."""
    told, consumed = mapping(summary, "data"), mapping(summary, "consumed")
    sources = mapping(told, "sources")
    if not sources:
        return Section("Data", (absent("figure about the data"),), short="Data")
    read = sum(finite(mapping(consumed, name).get("tokens")) or 0.0 for name in sources)
    rows = tuple(
        _source_row(str(name), mapping(sources, name), mapping(consumed, name), read)
        for name in sources
    )
    columns = ("Source", "Documents", "Tokens", "Read", "Epochs", "Share", "Held out")
    facts = {
        "vocabulary": f"{number(mapping(told, 'vocabulary').get('size'))} tokens",
        "identity of the vocabulary": fact(mapping(told, "vocabulary").get("identity")),
        "shards": fact(told.get("shards")),
    }
    parts = (
        Table(columns, rows, caption="What there was, and what was read of it"),
        KeyValues(facts),
    )
    return Section("Data, and how it was mixed", parts, short="Data")


def _source_row(name: str, told: Told, read: Told, whole: float) -> tuple[str | Cell, ...]:
    tokens = finite(read.get("tokens"))
    about = " · ".join(text(told.get(key)) for key in ("language", "licence") if told.get(key))
    return (
        Cell(name, about),
        number(told.get("documents")),
        count(told.get("tokens")),
        count(tokens),
        number(read.get("epochs")),
        percent(tokens / whole) if tokens is not None and whole else MISSING,
        Cell(
            plural(int(finite(told.get("held_out_documents")) or 0), "document"),
            f"{count(told.get('held_out_tokens'))} tokens",
        ),
    )


def samples(summary: Told) -> Section:
    """What the model wrote: last, first, and in between."""
    told = sampled(summary)
    if not told:
        said = Paragraph("The recipe has no samples.prompts: nothing was written.", "quiet")
        return Section("What it wrote", (said,), short="Samples")
    parts: list[Part] = []
    for prompt, rows in told:
        parts.append(_sample_table(prompt, [rows[-1]], "At the end"))
        if rows[:-1]:
            early = _sample_table(prompt, rows[:-1], "While it learnt")
            parts.append(Details(f"{plural(len(rows) - 1, 'earlier sample')}", (early,)))
    return Section(
        "What it wrote",
        tuple(parts),
        short="Samples",
        lead="The same beginnings with the same random numbers each time; only the model differs.",
    )


def _sample_table(prompt: str, rows: Sequence[Told], caption: str) -> Table:
    begins = f"continued: {prompt}" if prompt else "from nothing"
    cells = tuple((number(row.get("step")), text(row.get("text"))) for row in rows)
    return Table(("Step", begins), cells, "rl", caption=caption)


def events(summary: Told) -> Section:
    """Steps that were skipped, and returns to an earlier checkpoint."""
    told = mappings(summary, "events")
    skipped = [entry for entry in mappings(summary, "history") if entry.get("skipped")]
    if not told and not skipped:
        said = Paragraph("No step was skipped, and the run never went back.", "quiet")
        return Section("Events", (said,), short="Events")
    if not told:
        where = ", ".join(number(entry.get("step")) for entry in skipped[:10])
        said = Paragraph(f"{plural(len(skipped), 'step')} taught nothing: {where}.", "bad")
        return Section("Events", (said,), short="Events")
    rows = tuple(
        (
            number(entry.get("step")),
            text(entry.get("event") or entry.get("name")),
            "; ".join(
                f"{str(key).replace('_', ' ')}: {fact(value)}"
                for key, value in entry.items()
                if key not in ("kind", "step", "event", "name")
            ),
        )
        for entry in told
    )
    table = Table(("Step", "What", "Figures"), rows, "rll", caption="Events of the run")
    return Section("Events", (table,), short="Events")


def speed(summary: Told) -> Section:
    """How well the machine was used."""
    told = mapping(summary, "speed")
    if not told:
        return Section("Speed", (absent("speed"),), short="Speed")
    flops = finite(told.get("flops_per_token"))
    facts = {
        "tokens per second": number(told.get("tokens_per_second")),
        "FLOPs per token": MISSING if flops is None else f"{count(flops)} (6N and attention)",
        "model-FLOPs utilisation": percent(told.get("utilisation")),
        "held against": flop_rate(told),
    }
    lead = "Medians over the steps; evaluations, samples and checkpoints are not counted."
    return Section("Speed", (KeyValues(facts),), short="Speed", lead=lead)


def memory(summary: Told) -> Section:
    """Memory at its highest, beside what was predicted from the shapes."""
    told = mapping(summary, "memory")
    peak = finite(told.get("peak_bytes"))
    if peak is None:
        return Section("Memory", (absent("figure about memory"),), short="Memory")
    facts = {"measured at the highest": format_bytes(peak)}
    resident = finite(told.get("resident_bytes"))
    if resident is not None:
        facts["held before there were weights"] = format_bytes(resident)
    predicted = mapping(told, "predicted")
    parts: list[Part] = [KeyValues(facts)]
    sizes = {str(key): size for key in predicted if (size := finite(predicted[key])) is not None}
    if sizes:
        rows = tuple(
            (key.removesuffix("_bytes").replace("_", " "), format_bytes(size))
            for key, size in sizes.items()
            if key != "total" and size
        )
        whole = sizes.get("total")
        total = () if whole is None else ("Total", format_bytes(whole))
        caption = f"Predicted from the shapes; highest {text(predicted.get('moment'))}".strip()
        parts.append(Table(("Component", "Predicted"), rows, caption=caption, total=total))
    return Section("Memory", tuple(parts), short="Memory")
