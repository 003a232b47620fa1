"""The page of the study of regions."""

TITLE = "Where it looks, where attacks go"
QUESTION = ""


def figures(tables):
    return []
