"""Concepts: predicates about a text whose printed claim is their whole meaning."""
