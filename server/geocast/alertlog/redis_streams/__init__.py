"""A log in a Redis stream: any number of machines. (How the rules of the port are kept is told in `log.py`.)"""

from .log import RedisStreamsLog

__all__ = ["RedisStreamsLog"]
