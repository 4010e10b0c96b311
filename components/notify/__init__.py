"""Telling people, through Apprise: Slack, e-mail, webhooks and the rest."""
