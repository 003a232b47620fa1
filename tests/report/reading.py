"""A page as its reader gets it: what it would fetch, its ids and its text; and a text that no page may obey."""

from html.parser import HTMLParser

EVIL = "<script>window.evil = true</script>"


class Reader(HTMLParser):
    """Collects what a page would fetch, its elements' ids, and its text."""

    def __init__(self, html: str):
        super().__init__()
        self.fetched, self.ids, self.tags, self.text = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster"):
                self.fetched.append(value)
            if name == "id":
                self.ids.append(value)

    def handle_data(self, data):
        self.text.append(data)
