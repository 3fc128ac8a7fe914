"""Who is who: certificate subjects made comparable, so that one person is never two."""

import re
import unicodedata


class PersonError(PermissionError):
    """No person, not enough of them, or the same one twice."""


def person(subject: str) -> str:
    """A certificate subject in one spelling: parts sorted, types in lower case, values folded, space collapsed.

    `CN=Ann Lee, O=Desk` and `o=desk,cn=ANN  LEE` are one person. Raises PersonError where there is no common name.
    """
    if type(subject) is not str or len(subject) > 1024:
        raise PersonError(f"subject {str(subject)[:64]!r} is not a certificate's subject")
    parts = []
    for part in re.split(r"(?<!\\)[,+/]", unicodedata.normalize("NFKC", subject)):
        if not part.strip():
            continue
        kind, equals, value = part.partition("=")
        words = "".join(c for c in value.casefold() if unicodedata.category(c)[0] != "C" or c.isspace()).split()
        if not equals or not kind.strip() or not words:
            raise PersonError(f"subject {subject!r}: {part!r} is not a type and a value")
        parts.append(f"{kind.strip().lower()}={' '.join(words)}")
    if not any(part.startswith("cn=") for part in parts):
        raise PersonError(f"subject {subject!r} has no common name (CN)")
    return ",".join(sorted(set(parts)))
