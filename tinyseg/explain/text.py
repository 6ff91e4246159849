"""What explanations print: columns of text, and numbers as lines."""


def side_by_side(lines, left=(), gap="  "):
    """Return rows of texts as lines, with columns side by side.

    Parameters
    ----------
    lines : sequence of sequence of str
        As many texts in each.
    left : collection of int
        Which columns stand to the left, as words do; numbers stand to the right.
    gap : str
        Between columns.

    Returns
    -------
    list of str
        Without spaces at their ends.
    """
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.ljust if i in left else str.rjust for i in range(len(widths))]
    return [
        gap.join(side(cell, width) for side, cell, width in zip(sides, line, widths, strict=True)).rstrip()
        for line in lines
    ]


def ruled(lines, left=(), sums=False):
    """Return a table as lines: the first row is its head, and above the last one is a rule too, where that has sums."""
    text = side_by_side(lines, left)
    rule = "-" * max(map(len, text))
    return [text[0], rule, *text[1:-1], rule, text[-1]] if sums else [text[0], rule, *text[1:]]
