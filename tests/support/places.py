"""A locale and a time zone of the C library, for processes that a test starts.

They are made in a folder by an unprivileged user: a bare Debian has `localedef`, but neither the
locales' sources (package `locales`) nor the database of time zones (package `tzdata`), and the C
library takes a name that it does not know for "C" or UTC without a word.
"""

from __future__ import annotations

import os
import struct
import subprocess
import sys
from pathlib import Path

LATIN_1 = "de_DE.ISO-8859-1"
NEW_YORK = "America/New_York"

_CHARACTERS = "\n".join(f"<U{code:04X}> /x{code:02x} C" for code in range(256))
_CHARMAP = f"""<code_set_name> ISO-8859-1
<comment_char> %
<escape_char> /
CHARMAP
{_CHARACTERS}
END CHARMAP
"""
# What programs ask a locale for here is its encoding, which the character map says.
_LOCALE = """comment_char %
escape_char /
LC_CTYPE
END LC_CTYPE
LC_COLLATE
order_start forward
UNDEFINED
order_end
END LC_COLLATE
"""


def latin_1(folder: Path) -> dict[str, str]:
    """The environment of a process in Germany whose locale is not UTF-8.

    Args:
        folder: where the locale is made.
    """
    (folder / "characters").write_text(_CHARMAP)
    (folder / "locale").write_text(_LOCALE)
    locales = folder / "locales"
    locales.mkdir()
    # Its status is 1 where it warns, as of the categories that are left out.
    sources: list[str | Path] = ["-f", folder / "characters", "-i", folder / "locale"]
    made = subprocess.run(
        ["localedef", "--force", "--no-archive", *sources, locales / LATIN_1],
        capture_output=True,
        text=True,
        check=False,
    )
    environment = {"LOCPATH": str(locales), "LC_ALL": LATIN_1}
    asked = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.nl_langinfo(14))"
    assert _printed(asked, environment) == "ISO-8859-1", made.stderr
    return environment


def new_york(folder: Path) -> dict[str, str]:
    """The environment of a process in New York.

    Args:
        folder: where the zone is made.
    """
    zone = folder / NEW_YORK
    zone.parent.mkdir(parents=True)
    # RFC 9636: a header, a transition and the local time from then on, all that twice, and the rule
    # for what comes after the last transition.
    header = struct.pack(">4sc15x6L", b"TZif", b"2", 0, 0, 0, 1, 1, 4)
    eastern = struct.pack(">BlBB4s", 0, -5 * 3600, 0, 0, b"EST\0")
    narrow, wide = struct.pack(">l", 0), struct.pack(">q", 0)
    rule = b"\nEST5EDT,M3.2.0,M11.1.0\n"
    zone.write_bytes(header + narrow + eastern + header + wide + eastern + rule)
    environment = {"TZDIR": str(folder), "TZ": NEW_YORK}
    asked = "import time; print(*(time.localtime(at).tm_hour for at in (1.8e9, 1.81e9)))"
    # 2027-01-15T08:00Z in winter, 2027-05-11T01:46Z in summer.
    assert _printed(asked, environment) == "3 21"
    return environment


def _printed(script: str, environment: dict[str, str]) -> str:
    return subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()
