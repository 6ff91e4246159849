"""``tinyseg explain``: what happens inside. One file per subject: ``explain_plan.py``, ..."""

from tinyseg.cli import explain_detector, explain_plan, explain_roi


def add_parser(commands):
    """Add ``explain`` to the commands."""
    parser = commands.add_parser("explain", help="show what happens inside a network")
    subjects = parser.add_subparsers(title="subjects", metavar="SUBJECT", required=True)
    explain_plan.add_parser(subjects)
    explain_detector.add_parser(subjects)
    explain_roi.add_parser(subjects)
