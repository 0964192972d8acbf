"""The mail with a login link."""

from html import escape
from urllib.parse import urlsplit

from api.mail import Mail

SUBJECT = "OONI Account activation"
LINK_TEXT = "Please login here"

_TEXT = """\
Somebody, probably you, wants to log in to {host} with this e-mail address.

To log in, open this link within 24 hours:

{link}

It works once. If it was not you, there is nothing to do: nobody gets in without this link.
"""

_HTML = """\
<html>
<body>
<p>Somebody, probably you, wants to log in to {host} with this e-mail address.</p>
<p><a href="{link}">{link_text}</a> within 24 hours. The link works once.</p>
<p>If it was not you, there is nothing to do: nobody gets in without this link.</p>
</body>
</html>
"""


def login_mail(recipient: str, origin: str, token: str) -> Mail:
    """Return the mail with the link of `token` to the web interface at `origin`, such as https://explorer.example.org."""
    link = f"{origin}/login?token={token}"
    host = urlsplit(origin).netloc
    return Mail(
        recipient=recipient,
        subject=SUBJECT,
        text=_TEXT.format(host=host, link=link),
        html=_HTML.format(host=escape(host), link=escape(link), link_text=LINK_TEXT),
        link=link,
    )
