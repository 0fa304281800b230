"""The entries of a recipe that say what is trained on: the data set, what of it, and its augmentation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from batchscale.members import DATASETS, ON_DISK, PAIRS, TEXTS, WITH_BOXES
from batchscale.recipe.base import Count, Entry, OpenFraction, Share
from batchscale.recipe.union import member_of


class Augment(Entry):
    """Augmentation of a training image, keyed by (seed, epoch, image)."""

    flip: bool = False  # mirror with probability 1/2
    # padded: pad with black, cut the image's size out at a random place;
    # scale-aspect: a part of 8 to 100 % of the area, aspect 3/4 to 4/3, resized: Goyal et al. 2017, section 5.1
    crop: Literal["none", "padded", "scale-aspect"] = "none"
    padding: Count = 4  # pixels on each side, for crop: padded
    # height and width that the network gets of images on disk (224); of pairs: of a crop at a keyed place, in training
    # alone (all of an image)
    size: Count | None = None


class Data(Entry):
    """The data set and what is trained on of it."""

    name: Annotated[str, member_of(DATASETS)]
    augment: Augment = Augment()
    holdout: Annotated[int, Field(ge=0)] = 0  # training images held out and evaluated in place of the test set
    train_images: Count | None = None  # of images in memory: so many to train on, the same ones for every seed (all)
    # such a share of the training images, to the nearest whole one; the same ones for every seed, and a larger share
    # holds a smaller one
    train_fraction: Share = 1.0
    partial: Literal["carry", "drop"] = "carry"  # the last partial minibatch of an epoch's shuffle
    subset: str | None = None  # of images on disk: a list of the training files to use, one name a line
    skip_bad: bool = False  # of images on disk: instead of a bad file train on the next, evaluate none
    # of images on disk: who decodes a JPEG that is trained on: libjpeg, or a GPU's decoder, whose pixels are others by
    # some levels (evaluation is by libjpeg; not with numerics.exact; not yet run)
    decode: Literal["libjpeg", "nvjpeg"] = "libjpeg"
    # of images on disk: what validation folders or the words of a list of labels are, where two readings are possible:
    # names of training folders, or labels from 0 (refused where it is not said)
    labels: Literal["names", "numbers"] | None = None
    # of pairs: what a pixel of a mask is: a class, 255 for none; or an instance, all of which are class 1;
    # of images with boxes: instances: each box has a mask, which is read and learned, too
    masks: Literal["classes", "instances"] | None = None
    # how many classes: of pairs whose masks hold classes, the background included; of one's own data that do not tell
    classes: Count | None = None
    # of images with boxes: height and width that every image is resized to, its boxes with it (null: as they are)
    resize: Annotated[tuple[Count, Count], Field(strict=False)] | None = None
    tokens: Literal["characters", "bytes"] = "characters"  # of a text: what is told; characters of UTF-8
    sequence: Count | None = None  # of a text: T, the tokens of an example, its input and, one further on, its target
    # of a text in one file: the share at its end that is evaluated; of topics: the share of them, whole ones
    test_share: OpenFraction = 0.1

    @field_validator("resize", mode="before")
    @classmethod
    def _two_sides(cls, value: object) -> object:
        sides = value if isinstance(value, (list, tuple)) else ()
        whole = [side for side in sides if isinstance(side, int) and not isinstance(side, bool) and side >= 1]
        if value is not None and not len(whole) == len(sides) == 2:
            raise ValueError(
                f"is {value!r}: must be two whole numbers of at least 1, height and width; write for example "
                f"data.resize=[240, 320]"
            )
        return value

    @model_validator(mode="after")
    def _text_is_cut_into_sequences(self) -> Self:
        is_text, augment = self.name in TEXTS, self.augment
        meant_for_text = {
            "tokens": self.tokens != "characters",
            "sequence": self.sequence is not None,
            "test_share": self.test_share != 0.1,
        }
        for entry in (entry for entry, is_set in meant_for_text.items() if is_set and not is_text):
            raise ValueError(
                f"data.{entry} is for texts, and data.name={self.name} is none: leave it out, or use "
                f"data.name={' or '.join(TEXTS)}"
            )
        if is_text and self.sequence is None:
            raise ValueError(
                f"data.name={self.name} is a text, and data.sequence is missing: say how many tokens an example has, "
                f"for example data.sequence=64"
            )
        meant_for_pictures = {"masks": self.masks is not None, "classes": self.classes is not None}
        for entry in (entry for entry, is_set in meant_for_pictures.items() if is_set and is_text):
            raise ValueError(f"data.{entry} is for images, and data.name={self.name} is a text: leave it out")
        if is_text and (augment.flip or augment.crop != "none"):
            raise ValueError(f"data.augment is for images, and data.name={self.name} is a text: leave it out")
        return self

    @model_validator(mode="after")
    def _belongs_to_boxes(self) -> Self:
        if self.resize is not None and self.name not in WITH_BOXES:
            raise ValueError(
                f"data.resize is for images with boxes, and data.name={self.name} has none: leave it out, or use "
                f"data.name={' or '.join(WITH_BOXES)}"
            )
        return self

    @model_validator(mode="after")
    def _belongs_to_images_on_disk(self) -> Self:
        on_disk, augment = self.name in ON_DISK, self.augment
        meant_for_disk = {
            "augment.crop": augment.crop == "scale-aspect",
            "augment.size": augment.size is not None and self.name not in PAIRS,
            "subset": self.subset is not None,
            "skip_bad": self.skip_bad,
            "labels": self.labels is not None,
            "decode": self.decode != "libjpeg",
        }
        for entry in (entry for entry, is_set in meant_for_disk.items() if is_set and not on_disk):
            raise ValueError(
                f"data.{entry} is for images on disk, and data.name={self.name} is not: leave it out, "
                f"or use data.name={' or '.join(ON_DISK)}"
            )
        if on_disk and self.train_images is not None:
            raise ValueError(
                f"data.train_images={self.train_images} is for images in memory, and data.name={self.name} is not: "
                f"list the files to train on instead, with data.subset=FILE, or give data.train_fraction"
            )
        if self.train_images is not None and self.train_fraction != 1:
            raise ValueError(
                f"data.train_images={self.train_images} and data.train_fraction={self.train_fraction:g} both say how "
                f"much is trained on: leave one out"
            )
        if on_disk and augment.crop == "padded":
            raise ValueError("data.augment.crop=padded is for images of one size; use crop: scale-aspect or none")
        if augment.size is not None and augment.crop == "padded":
            raise ValueError(
                f"data.augment.crop=padded has no place beside data.augment.size={augment.size}, which cuts out a part "
                f"already; leave one out"
            )
        return self
