"""Where results rest: LanceDB tables, checkpoints, frames; their keys and versions."""
