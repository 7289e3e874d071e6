"""Results as text."""

from .engines import ENGINES, REFERENCE

HEADING = (f"{'':24s}{'ms':>10s}{'ratio':>8s}{'memory':>10s}{'GFLOP/s':>9s}{'of peak':>9s}"
           f"     (ratio to {ENGINES[REFERENCE].title}; peak: oneDNN's convolution)")


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
    ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2f}"
    share = "-" if row["share_of_peak"] is None else f"{row['share_of_peak']:.0%}"
    return (f"{row['ms']:10.2f}{ratio:>8s}{row['peak_mb']:7d} MB{row['gflops']:9.1f}"
            f"{share:>9s}")
