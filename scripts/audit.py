"""Known vulnerabilities of the pinned libraries, by pip-audit; a line for each. Exit code 1 where there is one.

The data is PyPI's. Behind a mirror that has none, or without a network, this says what could not be asked about and
fails nothing. What Ubuntu pins (requirements/ubuntu-*.txt, the floors) is not asked about: Ubuntu mends these versions
without a new number. A robot takes them from apt.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
FILES = ("requirements.txt", *(f"requirements/{name}.txt" for name in ("pip", "features", "test", "lint")))


def report(document: dict[str, list[dict[str, object]]]) -> tuple[list[str], list[str], list[str]]:
    """pip-audit's document as sentences about vulnerabilities, and the names it knew and did not know."""
    found, known, unknown = [], [], []
    for library in document["dependencies"]:
        if "skip_reason" in library:
            unknown.append(str(library["name"]))
            continue
        name = f"{library['name']} {library['version']}"
        known.append(name)
        for each in library["vulns"]:  # type: ignore[attr-defined]
            mended = ", ".join(each["fix_versions"]) or "no version yet"
            found.append(f"{name}: {each['id']} ({', '.join(each['aliases'])}), mended in {mended}")
    return found, known, unknown


def main() -> int:
    """Ask, say, and return the exit code."""
    command = [sys.executable, "-m", "pip_audit", "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    command += ["--format", "json", *(word for name in FILES for word in ("-r", name))]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if not done.stdout.startswith("{"):
        why = (done.stderr.strip().splitlines() or ["nothing was said"])[-1]
        print(f"audit: nothing could be asked: {why}")
        return 0
    found, known, unknown = report(json.loads(done.stdout))
    for sentence in found:
        print(f"audit: {sentence}")
    if unknown:
        print(f"audit: no data here about {len(unknown)} libraries: {', '.join(unknown)}")
    print(f"audit: {len(known)} libraries asked about, {len(found)} vulnerabilities")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
