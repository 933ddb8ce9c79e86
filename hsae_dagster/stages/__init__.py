"""The work of the assets: results of one stage in, results of the next one out."""
