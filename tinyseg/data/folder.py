"""Folders of pictures and masks as data sets."""

import glob
import operator
import os
from pathlib import Path

import numpy as np

from tinyseg.data.cache import SampleCache
from tinyseg.data.choose import natural_key, some
from tinyseg.data.formats import count_pages
from tinyseg.data.masks import check_same_size, read_instances, read_mask
from tinyseg.data.pictures import read_picture
from tinyseg.data.sample import Sample, boxes_of

#: Names of folders that `find_folders` takes for pictures and for masks, whatever their case.
PICTURE_FOLDERS = ("raw", "images", "image", "imgs", "img", "pictures", "photos", "inputs", "frames", "slices")
MASK_FOLDERS = (
    *("masks", "mask", "labels", "label", "membranes", "annotations"),
    *("truth", "groundtruth", "ground_truth", "gt", "targets", "segmentations"),
)

#: Files with these endings are pictures. Others of them are refused by name when read, not passed over.
_ENDINGS = {".png", ".tif", ".tiff", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".jp2"}


class FolderDataset:
    """The pictures of a folder, in natural order, with their masks from another.

    A picture and its mask have the same name but for the ending (``07.tif``, ``07.png``). A TIFF file of several
    pages gives one item per page, named ``stack_000``, ``stack_001``, ...; its masks are a file of as many pages.
    Files are read when asked for.

    Parameters
    ----------
    pictures_dir : str or path-like
        Folder of PNG, TIFF and JPEG files. Files with other endings, and hidden ones, are passed over.
    masks_dir : str or path-like, optional
        Folder of masks; without it there are none.
    num_classes : int
        Number of classes with the background, as for `read_mask`.
    channels : {None, 1, 3}
        As for `read_picture`.
    mask_suffix : str
        What masks' names have more than their pictures', such as ``"_mask"``.
    instances : bool
        Masks are label pictures, as `read_instances` reads them: each `Sample` has ``instances``, ``classes`` (all 1)
        and ``boxes``, and its ``mask`` is 0 and 1.
    ignore_index : int, optional
        A number in the masks outside the classes, as for `read_mask`.
    cache_bytes : int
        How much memory pictures and masks that were read may keep, so that they are not read again. Those read first
        are kept.

    Attributes
    ----------
    names : tuple of str
        Name of each item.
    picture_paths, mask_paths : tuple of (pathlib.Path, int)
        File and page of each; ``mask_paths`` is None without masks.
    class_names : tuple of str
        ``("background", "object")`` with ``instances``, else empty.

    Raises
    ------
    ValueError
        If a folder has no pictures, or pictures and masks do not pair; one sentence that names what is missing.
    """

    def __init__(
        self,
        pictures_dir,
        masks_dir=None,
        *,
        num_classes=1,
        channels=None,
        mask_suffix="",
        instances=False,
        ignore_index=None,
        cache_bytes=0,
    ):
        self.num_classes, self.channels = num_classes, channels
        self._instances, self._ignore_index = instances, ignore_index
        self.class_names = ("background", "object") if instances else ()
        files = _pictures_in(pictures_dir)
        self.names, self.picture_paths, pages = _items(files)
        self.mask_paths = None
        if masks_dir is not None:
            self.mask_paths = _pair(files, pages, _pictures_in(masks_dir), pictures_dir, masks_dir, mask_suffix)
        self._cache = SampleCache(cache_bytes)

    def __len__(self):
        return len(self.names)

    def __getitem__(self, i):
        """Return item ``i`` as a `Sample`; its arrays may be read-only."""
        index = operator.index(i)
        if not -len(self) <= index < len(self):
            raise IndexError(f"picture {i} was asked for; there are {len(self)}")
        return self._cache.get(index % len(self), self._read)

    def _read(self, index):
        path, page = self.picture_paths[index]
        picture = read_picture(path, self.channels, page)
        if self.mask_paths is None:
            return Sample(picture, name=self.names[index])
        mask_path, mask_page = self.mask_paths[index]
        options = {"ignore_index": self._ignore_index, "page": mask_page}
        mask = read_mask(mask_path, self.num_classes, instances=self._instances, **options)
        check_same_size(picture, mask, path, mask_path)
        if not self._instances:
            return Sample(picture, mask, self.names[index])
        instances = read_instances(mask_path, **options)
        count = int(instances.max(initial=0))
        return Sample(
            picture,
            mask,
            self.names[index],
            instances,
            np.ones(count, np.int64),
            boxes_of(instances, count),
            self.class_names,
        )


class Subset:
    """Some items of a data set.

    Parameters
    ----------
    dataset : data set
        Anything with ``len`` and indices.
    indices : sequence of int
        Which of its items, in which order.

    Attributes
    ----------
    names : tuple of str
        Name of each item.
    num_classes, class_names, category_ids
        As the data set has them.
    """

    def __init__(self, dataset, indices):
        self._dataset, self.indices = dataset, tuple(int(i) for i in indices)
        self.num_classes = getattr(dataset, "num_classes", 1)
        self.class_names = tuple(getattr(dataset, "class_names", ()))
        self.category_ids = tuple(getattr(dataset, "category_ids", ()))
        if self.indices and not -len(dataset) <= min(self.indices) <= max(self.indices) < len(dataset):
            raise ValueError(
                f"indices run from {min(self.indices)} to {max(self.indices)}; there are {len(dataset)} items"
            )
        names = getattr(dataset, "names", None) or [str(i) for i in range(len(dataset))]
        self.names = tuple(names[i] for i in self.indices)

    def __len__(self):
        return len(self.indices)

    def __getitem__(self, i):
        return self._dataset[self.indices[i]]


# ---- finding and pairing files -------------------------------------------------------------------------------------


def _pictures_in(folder):
    """Return {name without ending: path} of the pictures in a folder, in natural order."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is {'a file' if folder.exists() else 'not there'}; expected a folder of pictures")
    present = [path for path in folder.iterdir() if not path.name.startswith(".")]
    files = [path for path in present if path.suffix.lower() in _ENDINGS and path.is_file()]
    if not files:
        raise ValueError(f"{folder} has no pictures (PNG, TIFF, JPEG); {_contents(present)}")
    by_stem: dict[str, Path] = {}
    for path in sorted(files, key=lambda path: natural_key(path.name)):
        if path.stem in by_stem:
            raise ValueError(f"{folder} has both {by_stem[path.stem].name} and {path.name}; expected one file a name")
        by_stem[path.stem] = path
    return dict(sorted(by_stem.items(), key=lambda item: natural_key(item[0])))


def _contents(present):
    """Return what a folder holds, in words."""
    if not present:
        return "it is empty"
    return f"it holds {some(sorted(path.name + ('/' if path.is_dir() else '') for path in present))}"


def _items(files):
    """Return the names of all pages, their (path, page), and {file's name: number of pages}."""
    names, paths, pages = [], [], {}
    for stem, path in files.items():
        pages[stem] = count_pages(path) if path.suffix.lower() in (".tif", ".tiff") else 1
        for page in range(pages[stem]):
            names.append(stem if pages[stem] == 1 else f"{stem}_{page:03d}")
            paths.append((path, page))
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{paths[0][0].parent} has two pictures that are both called {twice}; rename one")
    return tuple(names), tuple(paths), pages


def _pair(files, pages, masks, pictures_dir, masks_dir, suffix):
    """Return the (path, page) of each picture's mask."""
    missing = [stem for stem in files if stem + suffix not in masks]
    if missing:
        raise ValueError(
            f"{masks_dir} has no mask for {len(missing)} of {len(files)} pictures of {pictures_dir}: "
            f"{some(stem + suffix for stem in missing)} (any ending); it holds {some(masks)}"
        )
    extra = [path.name for stem, path in masks.items() if stem not in {name + suffix for name in files}]
    if extra:
        raise ValueError(f"{masks_dir} has masks without a picture in {pictures_dir}: {some(extra)}")
    paired = []
    for stem, path in files.items():
        mask = masks[stem + suffix]
        if mask.suffix.lower() in (".tif", ".tiff") or pages[stem] > 1:
            found = count_pages(mask)
            if found != pages[stem]:
                raise ValueError(f"{mask} has {found} pages; expected {pages[stem]}, as its picture {path} has")
        paired += [(mask, page) for page in range(pages[stem])]
    return tuple(paired)


def find_folders(root, masks=True):
    """Find the folder of pictures and the folder of masks inside a data folder, by their names.

    Parameters
    ----------
    root : str or path-like
        The data folder, with subfolders such as ``raw`` and ``membranes``, or ``images`` and ``masks``
        (`PICTURE_FOLDERS`, `MASK_FOLDERS`).
    masks : bool
        Whether masks are needed.

    Returns
    -------
    pictures_dir : pathlib.Path
        Without masks, ``root`` itself where it holds pictures.
    masks_dir : pathlib.Path or None
        None only where masks are not needed, and there are none.

    Raises
    ------
    ValueError
        If they are not found, or several would do; the error lists what is there and says what to give instead.
    """
    root = Path(root)
    if not root.is_dir():
        raise ValueError(f"{root} is {'a file' if root.exists() else 'not there'}; expected a folder of data")
    present = [path for path in root.iterdir() if not path.name.startswith(".")]
    folders = {path.name.lower(): path for path in present if path.is_dir()}
    pictures = [folders[name] for name in PICTURE_FOLDERS if name in folders]
    truths = [folders[name] for name in MASK_FOLDERS if name in folders]
    if not masks and not pictures and any(path.suffix.lower() in _ENDINGS for path in present):
        return root, None
    wanted = [("pictures", pictures, PICTURE_FOLDERS), ("masks", truths, MASK_FOLDERS)]
    for what, found, known in wanted if masks else wanted[:1]:
        if len(found) != 1:
            problem = f"several folders of {what}" if found else f"no folder of {what} that is known by its name"
            names = some([path.name for path in found]) if found else f"names such as {some(known, 4)}"
            raise ValueError(
                f"{root} has {problem} ({names}); {_contents(present)}; "
                "give the two folders by themselves (--pictures and --masks)"
            )
    return pictures[0], truths[0] if len(truths) == 1 else None


def find_pictures(patterns):
    """Return the picture files that a list of files, folders and globs means.

    Parameters
    ----------
    patterns : iterable of str or path-like
        Files as they are; folders mean the pictures in them; globs (``*``, ``?``, ``[..]``) are expanded here, for
        shells that do not.

    Returns
    -------
    list of pathlib.Path
        In the order given, those of a folder or glob in natural order; none twice.

    Raises
    ------
    ValueError
        If one of them means nothing.
    """
    found = {}
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            files = list(_pictures_in(path).values())
        elif path.exists() or not glob.has_magic(os.fspath(pattern)):
            files = [path]
        else:
            matches = sorted(glob.glob(os.fspath(pattern), recursive=True), key=natural_key)
            files = [Path(match) for match in matches if Path(match).suffix.lower() in _ENDINGS]
        if not files or not files[0].exists():
            raise ValueError(f"{os.fspath(pattern)} means no picture: there is no such file")
        found.update(dict.fromkeys(files))
    return list(found)
