"""Makes docs/exit-codes.md from the error tree: python tests/exit_codes.py > docs/exit-codes.md."""

from __future__ import annotations

import re
import sys

from healthfm_core import errors
from healthfm_core.error_codes import CODES

HEAD = """# Exit codes

Made from `healthfm_core/error_codes.py` by `python tests/exit_codes.py > docs/exit-codes.md`; a
test fails when the two differ.

Every refusal is one sentence on the standard error: which error, its number, where, what was seen,
what was wanted, what to do. The process then ends with the exit code of the error's family.

| exit code | family | meaning |
|---|---|---|
| 0 | | done |
"""

MIDDLE = """| 130 | | interrupted by Ctrl-C; a run that can be resumed says so |

Numbers are never reused.

| number | meaning | family |
|---|---|---|
"""


def families() -> dict[int, type[errors.HealthFMError]]:
    """Return hundred of the number → the error raised for it, as the docstrings say it."""
    found = {}
    for family in errors.HealthFMError.__subclasses__():
        stated = re.search(r"HF-(\d)xx", family.__doc__ or "")
        if stated is None:
            raise SystemExit(f"the docstring of {family.__name__} names no HF-<n>xx")
        found[int(stated[1])] = family
    return dict(sorted(found.items()))


def page() -> str:
    """Return docs/exit-codes.md."""
    rows = [HEAD]
    for family in families().values():
        says = (family.__doc__ or "").splitlines()[0].rstrip(".")
        rows.append(f"| {family.exit_code} | `{family.__name__}` | {says} |\n")
    rows.append(MIDDLE)
    for number, code in sorted(CODES.items()):
        rows.append(f"| HF-{number} | {code.means} | `{families()[number // 100].__name__}` |\n")
    return "".join(rows)


if __name__ == "__main__":
    sys.stdout.write(page())
