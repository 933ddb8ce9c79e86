"""An independent reader: which texts have a claim, known from nothing but the claim as it is printed.

Belongs here: what a person with the card would do, written anew from what the card says: `claim` (what is printed),
`words` (whether terms occur), `cues` (named rules), `annotate` (all texts and claims). Does not belong here: anything
of the product. Nothing in this folder may import `hsae_dagster`, or it would repeat the product's mistakes; a test
holds this.
"""
