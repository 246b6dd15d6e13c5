"""Files as they come out of a bad disk, a broken transfer, or a hostile hand."""

from hypothesis import strategies as st

NUMBERS = [
    b"\0" * 4,
    b"\xff" * 4,
    b"\xff" * 8,
    b"\x7f\xff\xff\xff",
    b"\xff\xff\xff\x7f",
    b"\0\0\0\x80",
    b"\x01\0\0\0",
]


@st.composite
def edited(draw, content, words=()):
    """`content` after one to four edits; `words` are what may be put into it."""
    word = st.binary(min_size=1, max_size=8) | st.sampled_from([*NUMBERS, *words])
    for _ in range(draw(st.integers(1, 4))):
        a, b = sorted(draw(st.tuples(*2 * [st.integers(0, len(content))])))
        near = min(b, a + draw(st.integers(1, 16)))
        kind = draw(st.integers(0, 6))
        if kind == 0:  # cut off
            content = content[:a]
        elif kind == 1:  # a flipped bit
            flipped = content[a : a + 1] and bytes([content[a] ^ 1 << draw(st.integers(0, 7))])
            content = content[:a] + flipped + content[a + 1 :]
        elif kind == 2:  # other bytes
            new = draw(word)
            content = content[:a] + new + content[a + len(new) :]
        elif kind == 3:  # more bytes
            content = content[:a] + draw(word) + content[a:]
        elif kind == 4:  # a gap
            content = content[:a] + content[near:]
        elif kind == 5:  # a block twice
            content = content[:b] + content[a:b] + content[b:]
        else:  # a lost block
            content = content[:a] + bytes(b - a) + content[b:]
    return content
