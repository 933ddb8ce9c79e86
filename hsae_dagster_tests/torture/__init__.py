"""The torture of the whole: `make torture`, and in a shorter form the slow suite.

Belongs here: doing to a small project what life does to a real one (kills, damage, full disks, two at once, bad input,
load, hostile files), counting what is lost or wrong, and the table of it. Does not belong here: tests of single parts,
which lie beside their parts.
"""
