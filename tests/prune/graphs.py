"""Random small networks over every section that channels flow through."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

CLASSIC = ("linear", "leaky", "relu", "logistic", "tanh", "elu", "ramp")
EXTENDED = (*CLASSIC, "mish", "swish", "relu6", "hard_mish")


@dataclass
class Drawn:
    """A cfg that grows section by section; shapes[i] is (c, h, w) of layer i."""

    rng: np.random.Generator
    classic: bool
    """Only what pjreddie's Darknet knows."""
    text: str = ""
    shapes: list[tuple[int, int, int]] = field(default_factory=list)

    def one_of(self, *values: object) -> object:
        return values[self.rng.integers(len(values))]

    def add(self, section: str, shape: tuple[int, int, int], **values: object) -> None:
        lines = "".join(f"{key.rstrip('_')}={value}\n" for key, value in values.items())
        self.text += f"\n[{section}]\n{lines}"
        self.shapes.append(shape)

    def conv(self, filters: int, size: int = 1, stride: int = 1, groups: int = 1) -> None:
        _, h, w = self.shapes[-1] if self.shapes else (3, 13, 17)
        pad = size // 2
        shape = (filters, (h + 2 * pad - size) // stride + 1, (w + 2 * pad - size) // stride + 1)
        activation = self.one_of(*(CLASSIC if self.classic else EXTENDED))
        values = {"filters": filters, "size": size, "stride": stride, "pad": 1, "groups": groups}
        if groups == 1:
            del values["groups"]
        if self.rng.random() < 0.7:
            values = {"batch_normalize": 1, **values}
        self.add("convolutional", shape, **values, activation=activation)

    def step(self) -> None:
        """One more layer or small block, whatever fits."""
        c, h, w = self.shapes[-1]
        kinds = ["conv", "conv", "depthwise", "grouped", "residual", "partial", "chain", "maxpool", "route", "dropout"]
        kinds += ["crop", "activation"]
        if h < 9:
            kinds.append("upsample")
        if not self.classic:
            kinds += ["grouped route", "excite", "many", "attend", "blur", "deepest", "mean", "norm", "blocks", "back"]
            kinds += ["shared", "implicit", "empty"]
        kind = self.one_of(*kinds)
        even = int(self.rng.integers(2, 6)) * 2
        if kind == "conv":
            stride = int(self.one_of(1, 2)) if h > 4 else 1
            self.conv(even, 3 if stride == 2 else int(self.one_of(1, 3)), stride)
        elif kind == "depthwise":
            self.conv(c * int(self.one_of(1, 2)), 3, groups=c)
        elif kind == "grouped" and c % 2 == 0:
            self.conv(even, 3, groups=2)
        elif kind in ("residual", "chain"):
            start = len(self.shapes) - 1
            for _ in range(1 if kind == "residual" else 2):
                self.conv(even, 1)
                self.conv(c, 3)
                self.add(
                    "shortcut", (c, h, w), from_=start - len(self.shapes), activation=self.one_of("linear", "leaky")
                )
                start = len(self.shapes) - 1
        elif kind == "partial":
            start = len(self.shapes) - 1
            self.conv(max(2, c + int(self.rng.integers(-3, 4))), 3)
            self.add("shortcut", self.shapes[-1], from_=start, activation="linear")
        elif kind == "maxpool" and h > 4:
            size, stride = self.one_of((2, 2), (3, 1), (2, 1), (5, 1), (3, 2))
            padding = size - 1
            shape = (c, (h + padding - size) // stride + 1, (w + padding - size) // stride + 1)
            self.add("maxpool", shape, size=size, stride=stride)
        elif kind == "upsample":
            self.add("upsample", (c, 2 * h, 2 * w), stride=2)
        elif kind == "dropout":
            self.add("dropout", (c, h, w), probability=0.3)
        elif kind == "route":
            self.joined(1)
        elif kind == "grouped route":
            self.joined(2)
        elif kind == "excite":
            source = len(self.shapes) - 1
            self.add("avgpool", (c, 1, 1))
            self.conv(even)
            self.conv(c)
            self.add("scale_channels", (c, h, w), from_=source, activation=self.one_of("linear", "leaky"))
        elif kind == "many":
            start = len(self.shapes) - 1
            self.conv(c, 3)
            self.conv(c, 1)
            weights = {"weights_type": self.one_of("per_feature", "per_channel"), "weights_normalization": "softmax"}
            weights = weights if self.rng.random() < 0.7 else {}
            self.add("shortcut", (c, h, w), from_=f"-2,{start}", activation="linear", **weights)
        elif kind == "crop" and h > 4 and w > 4:
            self.add("crop", (c, h - 2, w - 1), crop_height=h - 2, crop_width=w - 1, noadjust=self.one_of(0, 1))
        elif kind == "activation":
            self.add("activation", (c, h, w), activation=self.one_of(*CLASSIC))
        else:
            self.extended_step(kind)

    def extended_step(self, kind: object) -> None:
        """One of the blocks that only AlexeyAB's Darknet knows."""
        c, h, w = self.shapes[-1]
        if kind == "attend":
            self.conv(c, 3)
            self.conv(c, 1)
            self.add("sam", (c, h, w), from_=-2, activation=self.one_of("linear", "logistic"))
        elif kind == "blur" and h > 4:
            out = ((h - 1) // 2 + 1, (w - 1) // 2 + 1)
            if self.rng.random() < 0.5:
                self.add("maxpool", (c, *out), size=3, stride=2, antialiasing=1)
            else:
                self.add(
                    "convolutional", (c, *out), filters=c, size=3, stride=2, pad=1, antialiasing=1, activation="leaky"
                )
            self.shapes[-1] = (0, 0, 0)  # no section may name it
            self.add("empty", (c, *out))
        elif kind == "deepest" and c % 2 == 0 and c > 4:
            self.add("maxpool", (c // 2, h, w), maxpool_depth=1, out_channels=c // 2)
        elif kind == "mean" and h > 4:
            self.add("local_avgpool", (c, (h - 1) // 2 + 1, (w - 1) // 2 + 1), size=3, stride=2)
        elif kind == "norm":
            self.add("batchnorm", (c, h, w))
        elif kind == "blocks" and h % 2 == w % 2 == 0 and c < 20:
            self.add("reorg3d", (4 * c, h // 2, w // 2), stride=2)
        elif kind == "back" and c % 4 == 0 and c > 4 and h < 9:
            self.add("reorg3d", (c // 4, 2 * h, 2 * w), stride=2, reverse=1)
        elif kind == "shared":
            self.conv(c, 3)
            owner = len(self.shapes) - 1
            lines = self.text[self.text.rindex("[convolutional]") :].splitlines()[1:]
            values = dict(line.split("=") for line in lines if line)
            self.add("convolutional", (c, h, w), **{**values, "activation": "elu"}, share_index=owner)
        elif kind == "implicit":
            self.add("implicit", (c, 1, 1), filters=c)
            self.add("scale_channels", (c, h, w), from_=-2, activation="linear")
        elif kind == "empty":
            self.add("empty", (c, h, w))

    def joined(self, groups: int) -> None:
        """A route over the last layer and earlier ones of its size."""
        _, h, w = self.shapes[-1]
        last = len(self.shapes) - 1
        fitting = [i for i, shape in enumerate(self.shapes) if shape[1:] == (h, w) and shape[0] % groups == 0]
        if not fitting:
            return
        count = min(len(fitting), int(self.rng.integers(1, 4)))
        chosen = [int(i) for i in self.rng.choice(fitting, count, replace=False)]
        channels = sum(self.shapes[i][0] for i in chosen) // groups
        listed = ",".join(str(i - last - 1 if self.rng.random() < 0.5 else i) for i in chosen)
        values = {"layers": listed} if groups == 1 else {"layers": listed, "groups": groups, "group_id": 1}
        self.add("route", (channels, h, w), **values)


def random_cfg(seed: int, *, classic: bool = False) -> str:
    """A cfg text: 5 to 11 random blocks on a 17x13 input, then a [yolo] or [region] head, or a classifier."""
    drawn = Drawn(np.random.default_rng(seed), classic)
    drawn.conv(8, 3)
    for _ in range(int(drawn.rng.integers(5, 12))):
        drawn.step()
    end = drawn.one_of("yolo", "region", "softmax")
    if end == "softmax":
        if drawn.rng.random() < 0.5:
            drawn.add("avgpool", (drawn.shapes[-1][0], 1, 1))
        drawn.add("connected", (6, 1, 1), output=6, activation="leaky")
        drawn.add("connected", (4, 1, 1), output=4, activation="linear")
        drawn.add("softmax", (4, 1, 1))
        drawn.add("cost", (4, 1, 1))
    else:
        drawn.conv(6)  # whatever the blocks have tied or frozen, this can be pruned
        drawn.text += "\n[convolutional]\nfilters=14\nsize=1\nstride=1\npad=1\nactivation=linear\n"
        anchors = "anchors=1,2,3,4\nclasses=2\n"
        drawn.text += (
            f"\n[yolo]\nmask=0,1\nnum=2\n{anchors}" if end == "yolo" else f"\n[region]\nnum=2\nsoftmax=1\n{anchors}"
        )
    return f"[net]\nbatch=1\nwidth=17\nheight=13\nchannels=3\n{drawn.text}"
