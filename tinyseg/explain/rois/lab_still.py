"""The RoI lab as a picture, for readers whose notebook is a page: nothing there can be dragged."""

import base64
import html
import io

MISSING = "To drag the box, install anywidget: pip install 'tinyseg[notebooks]', then restart the notebook's kernel."


def still(lab, hidden):
    """Return a lab as a picture, for each kind of reader.

    Parameters
    ----------
    lab : RoILab
        The lab.
    hidden : bool
        Whether a widget follows, whose style hides the page's picture where it is shown. If not, it is said how to get
        one.

    Returns
    -------
    dict of str to str
        By MIME type: text, PNG and a piece of a page.
    """
    picture = base64.b64encode(_one_picture(lab.figure(), lab.gradient_figure())).decode()
    said = "" if hidden else f"<p>{html.escape(MISSING)}</p>"
    about = html.escape(str(lab))
    image = f'<img src="data:image/png;base64,{picture}" alt="{about}" style="max-width: 100%">'
    return {
        "text/plain": str(lab) if hidden else f"{lab}\n\n{MISSING}",
        "image/png": picture,
        "text/html": f'<div class="tinyseg-roi-lab-still">{said}{image}</div>',
    }


def _one_picture(*figures):
    """Return figures below each other as one PNG."""
    from PIL import Image

    pictures = []
    for figure in figures:
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=100, facecolor="white")
        pictures.append(Image.open(buffer).convert("RGB"))
    width, height = max(picture.width for picture in pictures), sum(picture.height for picture in pictures)
    whole, y = Image.new("RGB", (width, height), "white"), 0
    for picture in pictures:
        whole.paste(picture, ((width - picture.width) // 2, y))
        y += picture.height
    buffer = io.BytesIO()
    whole.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()
