"""Finding the folders of pictures and masks that options name."""

from pathlib import Path

#: How much memory pictures may keep so that they are not read again.
CACHE_BYTES = 2**30


def open_folder(data, pictures, masks, **options):
    """Open pictures with masks.

    Parameters
    ----------
    data : str or None
        Folder that holds both folders.
    pictures, masks : str or None
        The two folders, in ``data`` or by themselves; found by name in ``data`` where neither is given.
    **options
        As for `tinyseg.data.FolderDataset`.

    Returns
    -------
    dataset : tinyseg.data.FolderDataset
        The pictures.
    places : dict of str
        ``data``, ``pictures`` and ``masks`` as absolute paths, ``data`` as None where it was not given.

    Raises
    ------
    ValueError
        If there are no such folders, or pictures and masks do not pair.
    """
    from tinyseg.data import FolderDataset

    folders = _two_folders(data, pictures, masks, "--data", "masks")
    dataset = FolderDataset(*folders, cache_bytes=CACHE_BYTES, **options)
    return dataset, _absolute(data=data, pictures=folders[0], masks=folders[1])


def open_objects(data, pictures, labels, *, option="--data", masks=None):
    """Open pictures with objects: a folder with label pictures, or a COCO json file with a folder of pictures.

    Label pictures are always read as numbered objects, never as class masks: 0 is the background, and each other
    number is one object.

    Parameters
    ----------
    data : str or None
        Folder that holds both folders, or the json file.
    pictures, labels : str or None
        The two folders, in ``data`` or by themselves; found by name in ``data`` where neither is given. With a json
        file, there are no labels, and ``pictures`` is the folder that its file names start from.
    option : str
        How the option that gives ``data`` is called.
    masks : bool, optional
        Of a json file: as for `tinyseg.data.CocoDataset`.

    Returns
    -------
    dataset : tinyseg.data.FolderDataset or CocoDataset
        The pictures, in colour.
    places : dict of str
        ``data``, ``pictures`` and ``labels`` as absolute paths, None where they were not given.

    Raises
    ------
    ValueError, OSError
        If they are not there, or pictures and labels do not pair.
    """
    if data is not None and Path(data).suffix.lower() == ".json":
        if labels is not None:
            raise ValueError(f"--labels was given with {data}, which has the objects itself; leave it out")
        from tinyseg.data import CocoDataset

        folder = Path(data).parent if pictures is None else Path(pictures)
        try:
            annotated = CocoDataset(data, folder, channels=3, cache_bytes=CACHE_BYTES, masks=masks)
        except ValueError as error:
            if pictures is None and "does not have" in str(error):
                raise ValueError(f"{error}; give the folder of the pictures (--pictures)") from None
            raise
        return annotated, _absolute(data=data, pictures=folder, labels=None)
    from tinyseg.data import FolderDataset

    folders = _two_folders(data, pictures, labels, option, "labels")
    dataset = FolderDataset(*folders, channels=3, instances=True, cache_bytes=CACHE_BYTES)
    return dataset, _absolute(data=data, pictures=folders[0], labels=folders[1])


def _two_folders(data, pictures, truth, option, name):
    """Return the folder of pictures and that of their truth, which the option ``--name`` gives."""
    from tinyseg.data import find_folders

    if pictures is None and truth is None:
        if data is None:
            raise ValueError(f"{option} is missing: the folder that holds the folders of pictures and {name}")
        return find_folders(data, masks=True)
    if pictures is None or truth is None:
        raise ValueError(f"only one of --pictures and --{name} was given: give both, or neither")
    return _inside(data, pictures), _inside(data, truth)


def _absolute(**places):
    """Return paths as absolute ones, None as it is."""
    return {name: None if path is None else str(Path(path).resolve()) for name, path in places.items()}


def _inside(data, folder):
    """Return a folder in ``data`` where there is one of that name, else by itself."""
    if data is not None and (Path(data) / folder).is_dir():
        return Path(data) / folder
    return Path(folder)
