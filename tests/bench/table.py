"""Results as text."""

from .engines import ENGINES, REFERENCE

HEADING = (f"{'':24s}{'ms':>10s}{'ratio':>8s}{'CPU ms':>10s}{'ratio':>8s}{'memory':>10s}"
           f"{'GFLOP/s':>9s}{'of peak':>9s}\n"
           f"ms: median by the clock; CPU ms: least time of the processor, all threads together;\n"
           f"ratio: to {ENGINES[REFERENCE].title}; GFLOP/s and peak (oneDNN's convolution): by CPU "
           f"ms, so for each thread")


def text(rows):
    """Return the rows of one case as lines, with those that could not take part."""
    first = rows[0]
    lines = [f"{first['network']}, {first['work']}, batch {first['batch']}, "
             f"{first['threads']} thread{'s' * (first['threads'] > 1)}"]
    found = {row["engine"]: row for row in rows}
    for name, engine in ENGINES.items():
        if first["work"] in engine.works:
            lines.append(f"  {engine.title:22s}" + (
                _numbers(found[name]) if name in found else "     not installed"))
    return "\n".join(lines)


def _numbers(row):
    ratio, cpu_ratio = ("-" if row[key] is None else f"{row[key]:.2f}"
                        for key in ("ratio", "cpu_ratio"))
    share = "-" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
    return (f"{row['ms']:10.2f}{ratio:>8s}{row['cpu_ms']:10.2f}{cpu_ratio:>8s}"
            f"{row['peak_mb']:7d} MB{row['gflops']:9.1f}"
            f"{share:>9s}")
