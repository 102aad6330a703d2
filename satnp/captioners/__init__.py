"""Annotations become words. One file a paper; all keep the contract of captioners/contract.py."""

from satnp.captioners import show_attend_tell

CAPTIONERS = {"show_attend_tell": show_attend_tell}
