"""Files as they should be, for fuzz.py to spoil."""

from __future__ import annotations

from typing import Final

NETS: Final = (
    """[net]
width=32
height=32
channels=3
batch=4
subdivisions=2
policy=steps
steps=100,200
scales=.1,.1

# stem
[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
activation=leaky

[convolutional]
filters=8
size=3
pad=1
groups=4
activation=mish

[shortcut]
from=-2
activation=linear

[avgpool]

[scale_channels]
from=-2

[maxpool]
size=2
stride=2

[upsample]
stride=2

[route]
layers=-1,2
groups=2
group_id=1

[dropout]
probability=.5

[convolutional]
filters=18
size=1
activation=linear

[yolo]
mask=0,1,2
anchors=10,13, 16,30, 33,23, 30,61
classes=1
num=4
jitter=.3
scale_x_y=1.05
""",
    """[network]
width=16
height=12
channels=1
[conv]
batch_normalize=1
filters=6
size=3
activation=relu
[max]
stride=2
[connected]
batch_normalize=1
output=10
activation=tanh
[softmax]
groups=2
[cost]
type=sse
""",
    """[net]
width=26
height=26
channels=3
inputs=2028
[convolutional]
filters=4
size=1
activation=elu
[reorg]
stride=2
[local]
filters=2
size=3
stride=1
pad=1
activation=leaky
[lrn]
size=5
[crop]
crop_height=8
crop_width=8
[sam]
from=-1
[batchnorm]
[activation]
activation=leaky
[convolutional]
filters=30
size=1
activation=linear
[region]
anchors=1.08,1.19, 3.42,4.41, 6.63,11.38, 9.42,5.11, 16.62,10.52
classes=1
coords=4
num=5
softmax=1
""",
    """[net]
inputs=16
time_steps=3
width=4
height=4
channels=1
[rnn]
output=8
hidden=8
activation=tanh
[gru]
output=8
[lstm]
output=8
[crnn]
output=2
hidden=2
[connected]
output=4
activation=linear
[softmax]
""",
)
DATA: Final = "classes=2\ntrain=train.txt\nvalid = valid.txt\n# names of classes\nnames=a.names\nbackup=backup/\n"
LISTED: Final = "images/a.jpg\r\nimages/b.png\n\nimages/c.bmp"
LABELS: Final = "0 0.5 0.5 0.25 0.125\n1 .1 .2 3e-1 0.4\r\n"
NAMES: Final = "person\ntraffic light\nmañana\n\n"
