"""The server's side: a real Triton as a child process, and the model repository that it serves."""

from .server import ADMIN_KEY_HEADER, KEY_HEADER, TritonServer

__all__ = ["ADMIN_KEY_HEADER", "KEY_HEADER", "TritonServer"]
