"""The server's side: a real Triton as a child process, and the model repository that it serves."""

from .server import KEY_HEADER, TritonServer

__all__ = ["KEY_HEADER", "TritonServer"]
