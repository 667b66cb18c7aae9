"""The commands of ``dcp``, and what they print and show. :mod:`dcp_sdk.cli` puts them together."""
