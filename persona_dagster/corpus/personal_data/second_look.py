"""A second, different detector: what masking left in text that is about to leave the machine.

It shares no pattern with the first: telephones come from phonenumbers' own matcher, and the rest is looked for where
all but letters and digits was squeezed out, so no spelling in between hides it. It knows no context and would rather
stop a release for a part number than let a person out: it reports, and masks nothing.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator

from phonenumbers import Leniency, PhoneNumberMatcher, PhoneNumberType, number_type
from stdnum import iban, luhn

from persona_dagster.corpus.personal_data.identity_documents import valid_national_id
from persona_dagster.corpus.personal_data.normalise import HAN_DIGITS

FREE = {PhoneNumberType.TOLL_FREE, PhoneNumberType.SHARED_COST, PhoneNumberType.PREMIUM_RATE, PhoneNumberType.UAN}
MOBILE = re.compile(r"(?<![0-9])(?:886)?0?9[0-9]{8}(?![0-9])")
CARD = re.compile(r"(?<![0-9])[3-6][0-9]{14,15}(?![0-9])")
NATIONAL_ID = re.compile(r"(?<![A-Za-z])[A-Z][1289][0-9]{8}(?![0-9])")
IBAN = re.compile(r"(?<![A-Z0-9])[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}(?![A-Z0-9])")
MAILBOX = re.compile(r"[^\s@<>]{2,64}@[^\s@<>]{1,64}\.[A-Za-z]{2,}")
PLACEHOLDER = re.compile(r"<[A-Z_]{2,12}>")


def identifiers(text: str) -> Iterator[str]:
    """The kinds of what looks like an identifier, one a finding; nothing of the text itself."""
    read = unicodedata.normalize("NFKC", PLACEHOLDER.sub("\n", text))
    yield from ("email" for found in MAILBOX.finditer(read) if not found.group().startswith("git@"))
    for found in PhoneNumberMatcher(read, "TW", leniency=Leniency.EXACT_GROUPING):
        if number_type(found.number) not in FREE:
            yield "telephone"
    for line in read.translate(HAN_DIGITS).splitlines():
        squeezed = "".join(c for c in line if c.isalnum())
        yield from ("telephone" for found in MOBILE.finditer(squeezed) if found.group()[0] == "0")
        yield from ("card" for found in CARD.finditer(squeezed) if luhn.is_valid(found.group()))
        yield from ("national id" for found in NATIONAL_ID.finditer(squeezed) if valid_national_id(found.group()))
        yield from ("iban" for found in IBAN.finditer(squeezed) if iban.is_valid(found.group()))
