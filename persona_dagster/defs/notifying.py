"""Tells a person: always in the log, and to a webhook where PERSONA_WEBHOOK_URL names one."""

import logging
import os

import httpx


def notify(text: str, log: logging.Logger) -> None:
    """Sends `{"text": …}`, which Slack, Mattermost and most bridges take. A deaf webhook fails nothing."""
    log.error(text)
    url = os.environ.get("PERSONA_WEBHOOK_URL")
    if not url:
        return
    try:
        httpx.post(url, json={"text": text}, timeout=10).raise_for_status()
    except httpx.HTTPError as error:
        log.warning("the webhook did not take the message: %s", type(error).__name__)  # its URL is a secret
