"""Maps chunks of a part's prompt tokens to segments of a pass."""

from __future__ import annotations

from fate_gym.lab.decoder.network import KvCache, Segment
from fate_gym.lab.replay.script import Part


class Units:
    """The remaining prompt tokens of a part: those of the prefix, then query by query.

    The number per query may differ by one, because cached inherited tokens are counted as a mean.
    """

    def __init__(self, part: Part) -> None:
        self.part = part
        own = part.tokens - (part.prefix - part.known)
        self.least_new, longer = divmod(max(0, own), part.queries)
        self._left: list[tuple[int, int, int, int]] = []
        """Blocks of equal queries: first and last (exclusive), first token, tokens of each."""
        if part.prefix > part.known:
            self._left.append((0, 1, part.known, part.prefix - part.known))
        for first, last, new in (
            (0, longer, self.least_new + 1),
            (longer, part.queries, self.least_new),
        ):
            if last > first and new > 0:
                self._left.append((first, last, max(part.known, part.prompt - new), new))

    def take(self, cache: KvCache, tokens: int) -> list[Segment]:
        """Take the next tokens, as segments of a pass."""
        segments = []
        while tokens > 0 and self._left:
            first, last, start, each = self._left.pop(0)
            whole = min(last - first, tokens // each)
            if whole > 0:
                segments.append(self._segment(cache, first, first + whole, start, each))
                tokens -= whole * each
                first += whole
            if first < last and 0 < tokens < each:
                # The first tokens of one query; the rest comes first next time.
                segments.append(self._segment(cache, first, first + 1, start, tokens))
                rest = [(first, first + 1, start + tokens, each - tokens)]
                rest += [(first + 1, last, start, each)] if first + 1 < last else []
                self._left = rest + self._left
                tokens = 0
            elif first < last:
                self._left.insert(0, (first, last, start, each))
        return segments

    def _segment(self, cache: KvCache, first: int, last: int, start: int, each: int) -> Segment:
        part = self.part
        shared = start + each <= part.prefix and start >= part.known
        # If only the prefix is new, its last token yields the first output token of every query.
        ends = start + each >= part.prompt
        into = slice(0, part.queries) if shared and (first, last) == (0, 1) else None
        return Segment(cache, slice(first, last), start, each, logits=ends, into=into)
