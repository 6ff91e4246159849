"""``tinyseg predict`` with a U-Net: a class for every pixel."""


class MaskPredictor:
    """Writes mask, probabilities and overlay for each picture.

    Parameters
    ----------
    model : tinyseg.models.UNet
        The network.
    info : dict
        As `tinyseg.training.load_model` gives it.
    args : argparse.Namespace
        The command's options.
    """

    def __init__(self, model, info, args):
        for name in ("score", "max_objects"):
            if getattr(args, name) is not None:
                raise ValueError(f"--{name.replace('_', '-')} is for networks that find objects; this is a U-Net")
        self.model, self.normalisation = model, info["normalisation"]
        self.threshold = info["threshold"] if args.threshold is None else args.threshold
        self.tile = "auto" if args.tile is None else args.tile
        self.channels = model.in_channels
        self.endings = {
            "mask": "_mask.png",
            "probability": "_probability.png" if model.out_channels == 1 else "_probability.tif",
            "overlay": "_overlay.png",
        }
        self.run_files = ()
        self.written = "masks, probabilities and overlays are in {}"

    def predict(self, x):
        """Return the probabilities of one picture; a large one, of many tiles, shows how far it is."""
        from tqdm import tqdm

        from tinyseg.evaluation import predict

        with tqdm(unit="tile", desc="predicting", leave=False, delay=2, disable=None) as bar:

            def show(done, total):
                bar.total = total
                bar.update(done - bar.n)

            return predict(self.model, x, tile=self.tile, normalisation=self.normalisation, before_tile=show)

    def write(self, outputs, picture, probabilities, source):
        """Write the three files; return in words how much was found, and the file to look at."""
        import numpy as np

        from tinyseg import draw
        from tinyseg.data import write_mask, write_picture
        from tinyseg.evaluation import to_mask

        classes = probabilities.shape[0]
        mask = to_mask(probabilities, self.threshold)
        write_mask(outputs["mask"], mask, classes)
        if classes == 1:
            write_picture(outputs["probability"], np.clip(probabilities[0], 0, 1), bits=16)
        else:
            _write_pages(outputs["probability"], probabilities)
        shown, dim = draw.drawable(picture)
        draw.save(outputs["overlay"], draw.overlay(shown, mask, stretch=dim))
        if classes == 1:
            return f"{mask.mean():.1%} foreground", outputs["mask"]
        return f"classes {', '.join(map(str, np.unique(mask)))}", outputs["mask"]

    def finish(self, folder):
        """Write what is written once for all pictures: nothing."""


def _write_pages(path, probabilities):
    """Write one 16-bit page per class."""
    import numpy as np
    import tifffile

    from tinyseg.files import atomic_write

    pages = np.rint(np.clip(probabilities, 0, 1) * 65535).astype(np.uint16)
    with atomic_write(path) as file:
        tifffile.imwrite(file, pages, photometric="minisblack", compression="zlib", metadata=None)
