"""Blocks: what a stage is made of, who runs them, and the ledger of what is done."""
