"""Colours that people with any colour vision tell apart."""

#: Red, green and blue from 0 to 255, after Okabe and Ito, "Color Universal Design" (2008), without black.
OKABE_ITO = {
    "orange": (230, 159, 0),
    "sky blue": (86, 180, 233),
    "bluish green": (0, 158, 115),
    "yellow": (240, 228, 66),
    "blue": (0, 114, 178),
    "vermilion": (213, 94, 0),
    "reddish purple": (204, 121, 167),
}

#: The same as matplotlib, SVG and HTML take them: ``"#e69f00"``.
HEX = {name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in OKABE_ITO.items()}

#: Colours of classes 1, 2, ... and of objects 1, 2, ...; they repeat.
CLASS_COLOURS = tuple(OKABE_ITO.values())
