"""Tells a person: always in the log, by webhook where PERSONA_WEBHOOK_URL names one (Slack, Mattermost), and by e-mail
where PERSONA_SMTP_URL and PERSONA_MAIL_TO are set."""

import logging
import os
import smtplib
import ssl
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import httpx

PATIENCE_S = 10


def notify(text: str, log: logging.Logger) -> None:
    """Sends `text` on every way that is set. A webhook or mail server that does not answer fails nothing."""
    log.error(text)
    for way, send in (("PERSONA_WEBHOOK_URL", _post), ("PERSONA_SMTP_URL", _mail)):
        if url := os.environ.get(way):
            try:
                send(url, text)
            except (httpx.HTTPError, OSError, ValueError) as error:  # SMTPException is an OSError
                log.warning("%s did not take the message: %s", way, type(error).__name__)  # its value is a secret


def _post(url: str, text: str) -> None:
    httpx.post(url, json={"text": text}, timeout=PATIENCE_S).raise_for_status()


def _mail(url: str, text: str) -> None:
    """`smtp://user:password@host:587` speaks TLS as soon as there is a password; `smtps://` from the first byte."""
    server, to = urlsplit(url), os.environ.get("PERSONA_MAIL_TO", "")
    if not server.hostname or "@" not in to:
        raise ValueError("PERSONA_SMTP_URL needs a host, PERSONA_MAIL_TO an address")
    message = EmailMessage()
    message["Subject"], message["To"] = f"persona_dagster: {text.splitlines()[0][:120]}", to
    message["From"] = os.environ.get("PERSONA_MAIL_FROM", to)
    message.set_content(text)
    tls = ssl.create_default_context()
    if server.scheme == "smtps":
        smtp: smtplib.SMTP = smtplib.SMTP_SSL(server.hostname, server.port or 465, timeout=PATIENCE_S, context=tls)
    else:
        smtp = smtplib.SMTP(server.hostname, server.port or 25, timeout=PATIENCE_S)
    with smtp:
        if server.password:
            if server.scheme != "smtps":
                smtp.starttls(context=tls)
            smtp.login(unquote(server.username or ""), unquote(server.password))
        smtp.send_message(message)
