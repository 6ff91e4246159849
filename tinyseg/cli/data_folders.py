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
    from tinyseg.data import FolderDataset, find_folders

    if pictures is None and masks is None:
        if data is None:
            raise ValueError("--data is missing: the folder that holds the folders of pictures and masks")
        pictures, masks = find_folders(data, masks=True)
    elif pictures is None or masks is None:
        raise ValueError("only one of --pictures and --masks was given: give both, or neither")
    else:
        pictures, masks = _inside(data, pictures), _inside(data, masks)
    dataset = FolderDataset(pictures, masks, cache_bytes=CACHE_BYTES, **options)
    places = {"data": data, "pictures": pictures, "masks": masks}
    return dataset, {name: None if path is None else str(Path(path).resolve()) for name, path in places.items()}


def _inside(data, folder):
    """Return a folder in ``data`` where there is one of that name, else by itself."""
    if data is not None and (Path(data) / folder).is_dir():
        return Path(data) / folder
    return Path(folder)
