"""Figures as Markdown tables, each with the settings it was taken with, and what they had to be."""

import statistics
import sys


def spread(values, digits=1):
    """Median, with the least and the greatest where there are several: `2.3 (2.1–2.6)`."""
    values = [value for value in values if value is not None]
    if not values:
        return "–"
    middle = f"{statistics.median(values):.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def median(values):
    """The median, or None of nothing."""
    values = [value for value in values if value is not None]
    return statistics.median(values) if values else None


def progress(text):
    """What is being done, for whoever waits; no part of the report."""
    print(f"… {text}", file=sys.stderr, flush=True)


class Report:
    """Prints as it grows, so that a run that is cut short has said what it knew."""

    def __init__(self):
        self.checks, self.notes = [], []

    def heading(self, text):
        print(f"\n## {text}\n", flush=True)

    def say(self, text):
        print(f"{text}\n", flush=True)

    def note(self, text):
        """Something a reader of the figures must know; said at once and again at the end."""
        self.notes.append(text)
        print(f"Note: {text}\n", flush=True)

    def table(self, columns, rows):
        if not rows:
            return
        print("| " + " | ".join(columns) + " |")
        print("| " + " | ".join("---" for _ in columns) + " |")
        for row in rows:
            print("| " + " | ".join(str(cell) for cell in row) + " |")
        print(flush=True)

    def check(self, what, value, unit, bounds, digits=1):
        """A figure beside what it must be and what is aimed at: `bounds` is (sign, must, goal) with
        the sign `<=`, `<` or `>=`; either bound may be None."""
        sign, must, goal = bounds
        self.checks.append({
            "what": what, "unit": unit, "sign": sign, "digits": digits, "value": value,
            "must": must, "must_holds": _holds(value, sign, must),
            "goal": goal, "goal_holds": _holds(value, sign, goal),
        })

    def verdicts(self):
        """The table of all checks."""
        if not self.checks:
            return
        self.heading("Beside what it has to be")
        rows = []
        for check in self.checks:
            digits, sign = check["digits"], {"<=": "≤", ">=": "≥"}.get(check["sign"], check["sign"])
            value = "not measured" if check["value"] is None else f"{check['value']:.{digits}f}"
            rows.append((check["what"], f"{value} {check['unit']}",
                         _bound(sign, check["must"], digits, check["must_holds"]),
                         _bound(sign, check["goal"], digits, check["goal_holds"])))
        self.table(("figure", "measured", "must", "goal"), rows)
        for note in self.notes:
            print(f"- {note}")

    def failed(self):
        """How many figures are not what they must be."""
        return sum(check["must_holds"] is False for check in self.checks)


def _holds(value, sign, bound):
    if bound is None:
        return None
    if value is None:
        return False
    return {"<=": value <= bound, "<": value < bound, ">=": value >= bound}[sign]


def _bound(sign, bound, digits, holds):
    if bound is None:
        return ""
    return f"{'✔' if holds else '✘'} {sign} {bound:.{digits}f}"
