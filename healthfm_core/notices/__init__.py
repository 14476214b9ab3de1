"""Notices: what a person wants to be told of, by mail, by a webhook or on the desktop.

`notice_settings` is what an administrator writes down, `notice` one thing to be told, `channels`
how it is told, `outbox` what was told already and what is still to be delivered, `watch` the loop.
"""
