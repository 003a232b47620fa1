"""Parse pages: the addresses they fetch, their ids and text. EVIL is a text that pages must not execute."""

from html.parser import HTMLParser

EVIL = "<script>window.evil = true</script>"


class Reader(HTMLParser):
    """Collects the addresses a page fetches, its tags, the ids of its elements, and its text."""

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
