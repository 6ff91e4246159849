"""``tinyseg train``: one network per file, ``train_unet.py`` and ``train_detector.py``."""

from tinyseg.cli import train_detector, train_unet


def add_parser(commands):
    """Add ``train`` to the commands."""
    parser = commands.add_parser("train", help="train a network on pictures of yours")
    networks = parser.add_subparsers(title="networks", metavar="NETWORK", required=True)
    train_unet.add_parser(networks)
    train_detector.add_parsers(networks)
