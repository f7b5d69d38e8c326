"""The structured configuration: every key that exists, its type, and the values that make sense.

Each key is a field of a dataclass, with what it means in the comment beside it. Hydra refuses a key or a type that is
not declared here when it composes; `actshift.schema.fields` refuses what a field's choices and bounds exclude.
"""
