"""Answers to the questions of notebook 9: the same kernel on a GPU."""

from tinyseg.lessons.question import Question

_WARP, _SECTOR, _BANKS = 32, 32, 32


def _sectors(stride, size):
    """Return how many sectors the threads of a warp touch that read elements of so many bytes, ``stride`` apart."""
    places = [thread * stride * size + byte for thread in range(_WARP) for byte in range(size)]
    return len({place // _SECTOR for place in places})


def _passes(pitch):
    """Return how many passes a warp takes that reads a column of rows with so many words."""
    banks = [thread * pitch % _BANKS for thread in range(_WARP)]
    return max(map(banks.count, banks))


QUESTIONS = (
    Question(
        name="gpu.1",
        right=1024,
        because="four blocks of 256 are the first number of whole blocks that covers 1000",
        wrong=(
            (1000, "is how many of them have something to do; blocks are started whole"),
            (768, "is three blocks: the last 232 elements would have no thread"),
            (4, "is the number of blocks"),
        ),
        hint="How many whole blocks does it take?",
    ),
    Question(
        name="gpu.2",
        right=lambda: _sectors(1, 8),
        because="32 numbers of 8 bytes are 256 bytes, and a sector has 32",
        wrong=(
            (4, "is what numbers of 4 bytes take"),
            (32, "would be a sector for each thread; four neighbours share one"),
            (1, "would be a sector of 256 bytes; it has 32"),
        ),
        hint="How many bytes do they read in all?",
    ),
    Question(
        name="gpu.3",
        right=lambda: _sectors(2, 4),
        because="the numbers are spread over 256 bytes, and half of what is fetched is not used",
        wrong=(
            (4, "counts the bytes that are used; sectors are fetched whole"),
            (16, "is the number of threads in half a warp"),
            (32, "would be a sector for each thread; four of them still share one"),
        ),
        hint="Over how many bytes are the 32 numbers spread?",
    ),
    Question(
        name="gpu.4",
        right=lambda: _passes(48),
        because="a row begins 16 banks after the one before, so that the column falls on two banks, 16 words in each",
        wrong=(
            (1, "is so for rows of 33 words; with 48, every second row begins at the same bank"),
            (32, "is so for rows of 32 words, all of which begin at the same bank"),
            (2, "is the number of banks that the column falls on"),
        ),
        hint="At which bank does row r begin? How many of the 32 rows begin at the same one?",
    ),
    Question(
        name="gpu.5",
        right="between",
        because="without it the reader may be there before the writer",
        wrong=(
            ("every", "would be right, and slow: what only its own thread reads needs none"),
            ("end", "is not needed: the next kernel starts after this one has ended"),
        ),
        hint="Who else reads what a thread has written, and how does it know that it is there?",
    ),
)
