"""Which sections and keys each reader knows, as tables (parse_* of parser.c; darknet_cfg.cpp; darknet_io.cpp).

Sections go by their full name; `names` of a reader says how they may be written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

Keys = Mapping[str, frozenset[str]]
"""For each section, the keys that are read in it."""


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


def _keys(common: str, sections: Mapping[str, str]) -> Keys:
    return {name: words(f"{common} {own}") for name, own in sections.items()}


_POOL: Final = "stride size padding"
_REGION: Final = (
    "coords classes num max log sqrt softmax jitter rescore thresh classfix absolute random coord_scale object_scale "
    "noobject_scale mask_scale class_scale bias_match tree map anchors"
)
_DETECTION: Final = (
    "coords classes rescore num side softmax sqrt max coord_scale forced object_scale noobject_scale class_scale "
    "jitter random reorg"
)
_CROP: Final = "crop_height crop_width flip angle saturation exposure noadjust shift"
_RATE: Final = "max_batches batch learning_rate momentum decay subdivisions time_steps adam policy burn_in power"
_INPUT: Final = "height width channels inputs angle aspect saturation exposure hue"
_SCHEDULE: Final = "step scale steps scales gamma B1 B2 eps"

PJREDDIE: Final = _keys(
    "truth onlyforward stopbackward dontsave dontload numload dontloadscales learning_rate smooth",
    {
        "convolutional": "filters size stride pad padding groups activation batch_normalize binary xnor flipped dot",
        "deconvolutional": "filters size stride pad padding activation batch_normalize",
        "local": "filters size stride pad activation",
        "connected": "output activation batch_normalize",
        "activation": "activation",
        "logistic": "",
        "l2norm": "",
        "rnn": "output activation batch_normalize shortcut",
        "gru": "output batch_normalize tanh",
        "lstm": "output batch_normalize",
        "crnn": "output_filters hidden_filters activation batch_normalize shortcut",
        "crop": _CROP,
        "cost": "type scale ratio noobj thresh",
        "region": _REGION + " background",
        "yolo": "classes num mask max jitter ignore_thresh truth_thresh random map anchors",
        "iseg": "classes ids",
        "detection": _DETECTION,
        "softmax": "groups temperature tree spatial noloss",
        "normalization": "alpha beta kappa size",
        "batchnorm": "",
        "maxpool": _POOL,
        "reorg": "stride reverse flatten extra",
        "avgpool": "",
        "route": "layers",
        "upsample": "stride scale",
        "shortcut": "from activation alpha beta",
        "dropout": "probability",
    },
)
PJREDDIE_NET: Final = words(
    f"{_RATE} {_INPUT} {_SCHEDULE} notruth random min_crop max_crop min_ratio max_ratio center clip"
)

_WINDOW: Final = "stride stride_x stride_y size padding"
_HEAD: Final = (
    "classes num mask max anchors map max_delta counters_per_class label_smooth_eps scale_x_y objectness_smooth "
    "iou_normalizer obj_normalizer cls_normalizer delta_normalizer iou_loss iou_thresh_kind beta_nms nms_kind jitter "
    "resize ignore_thresh truth_thresh iou_thresh random"
)
_COMMON: Final = (
    "clip onlyforward dont_update burnin_update stopbackward train_only_bn dontload dontloadscales learning_rate"
)
_SHARED: Final = {
    "convolutional": (
        "filters groups size stride stride_x stride_y dilation antialiasing pad padding activation assisted_excitation "
        "share_index batch_normalize cbn binary xnor bin_output sway rotate stretch stretch_sway flipped dot angle "
        "grad_centr reverse coordconv stream wait_stream"
    ),
    "connected": "output activation batch_normalize",
    "rnn": "output hidden activation batch_normalize logistic shortcut",
    "lstm": "output batch_normalize",
    "crnn": ("size stride dilation pad padding output hidden groups activation batch_normalize xnor shortcut"),
    "cost": "type scale ratio",
    "region": _REGION + " focal_loss resize",
    "yolo": (
        _HEAD + " new_coords focal_loss track_history_size sim_thresh dets_for_track dets_for_show track_ciou_norm "
        "embedding_layer"
    ),
    "Gaussian_yolo": _HEAD + " uc_normalizer yolo_point",
    "softmax": "groups temperature tree spatial noloss",
    "contrastive": "classes yolo_layer temperature cls_normalizer max_delta contrastive_neg_max",
    "maxpool": _WINDOW + " maxpool_depth out_channels antialiasing maxpool_zero_nonmax",
    "local_avgpool": _WINDOW,
    "reorg3d": "stride reverse",
    "avgpool": "",
    "route": "layers groups group_id stream wait_stream",
    "upsample": "stride scale",
    "shortcut": "from activation weights_type weights_normalization",
    "scale_channels": "from scale_wh activation",
    "sam": "from activation",
    "dropout": "probability dropblock dropblock_size_rel dropblock_size_abs",
}
"""What AlexeyAB's and hank-ai's Darknet have in common."""
_SHARED_NET: Final = (
    f"{_RATE} {_INPUT} {_SCHEDULE} seq_scales learning_rate_min sgdr_cycle sgdr_mult track augment_speed "
    "sequential_subdivisions try_fix_nan weights_reject_freq equidistant_point badlabels_rejection_percentage "
    "num_sigmas_reject_badlabels ema_alpha use_cuda_graph loss_scale dynamic_minibatch optimized_memory "
    "workspace_size_limit_MB flip blur gaussian_noise mixup cutmix mosaic letter_box mosaic_bound contrastive "
    "contrastive_jit_flip contrastive_color label_smooth_eps resize_step attention adversarial_lr max_chart_loss "
    "show_receptive_field"
)
ALEXEYAB: Final = _keys(
    _COMMON,
    {
        **_SHARED,
        "yolo": _SHARED["yolo"] + " show_details",
        "local": "filters size stride pad activation",
        "activation": "activation",
        "gru": "output batch_normalize",
        "conv_lstm": (
            "size stride dilation pad padding output groups activation batch_normalize xnor peephole bottleneck "
            "state_constrain shortcut lstm_activation time_normalizer"
        ),
        "history": "history_size",
        "crop": _CROP,
        "detection": _DETECTION + " resize",
        "normalization": "alpha beta kappa size",
        "batchnorm": "",
        "reorg": "stride reverse",
        "implicit": "mean std filters units",
        "empty": "",
    },
)
ALEXEYAB_NET: Final = words(f"{_SHARED_NET} max_crop min_crop unsupervised")
HANK_AI: Final = _keys(_COMMON, _SHARED)
HANK_AI_NET: Final = frozenset(_SHARED_NET.split())

OPENCV: Final = _keys(
    "activation",
    {
        "convolutional": "size pad padding stride filters groups batch_normalize flipped",
        "connected": "output batch_normalize",
        "maxpool": _POOL,
        "avgpool": "",
        "softmax": "groups",
        "route": "layers groups group_id",
        "dropout": "",
        "cost": "",
        "crop": "crop_height crop_width noadjust",
        "reorg": "stride",
        "region": "thresh coords classes num classfix softmax tree anchors",
        "shortcut": "from alpha beta",
        "scale_channels": "from",
        "sam": "from",
        "upsample": "stride",
        "yolo": "classes num thresh nms_threshold scale_x_y new_coords anchors mask",
    },
)
OPENCV_NET: Final = frozenset({"width", "height", "channels"})

NCNN: Final = _keys(
    "",
    {
        "convolutional": "filters size stride pad padding groups dilation activation batch_normalize",
        "shortcut": "from activation",
        "maxpool": _POOL,
        "avgpool": "",
        "scale_channels": "from activation",
        "route": "layers groups group_id",
        "upsample": "stride",
        "dropout": "",
        "yolo": "classes mask anchors num ignore_thresh scale_x_y",
    },
)
NCNN_NET: Final = words("width height channels")
TENSORRT_DEMOS: Final = _keys(
    "",
    {
        "convolutional": "filters size stride pad activation batch_normalize",
        "maxpool": "size stride",
        "shortcut": "from activation",
        "route": "layers groups group_id",
        "upsample": "stride",
        "yolo": "classes mask anchors num scale_x_y new_coords",
    },
)
"""pad: whatever it says, size / 2 is meant. num: as many anchors as there are."""
TENSORRT_DEMOS_NET: Final = words("width height channels steps scales")
PYTORCH_YOLOV4: Final = _keys(
    "",
    {
        "convolutional": "filters size stride pad activation batch_normalize",
        "maxpool": "size stride",
        "avgpool": "",
        "softmax": "",
        "cost": "type",
        "route": "layers groups group_id",
        "shortcut": "from activation",
        "upsample": "stride",
        "connected": "output activation",
        "reorg": "stride",
        "region": "anchors classes num object_scale noobject_scale class_scale coord_scale",
        "yolo": "anchors mask classes num scale_x_y",
    },
)
PYTORCH_YOLOV4_NET: Final = words("width height channels")

POLICIES: Final[Mapping[str, frozenset[str]]] = {
    "constant": frozenset(),
    "step": frozenset({"step", "scale"}),
    "steps": frozenset({"steps", "scales", "seq_scales"}),
    "sgdr": frozenset({"steps", "scales", "seq_scales"}),
    "exp": frozenset({"gamma"}),
    "sigmoid": frozenset({"gamma", "step"}),
    "poly": frozenset(),
    "random": frozenset(),
}
"""Keys of [net] that are read under that policy only."""
POLICY_KEYS: Final = frozenset().union(*POLICIES.values())
ADAM_KEYS: Final = frozenset({"B1", "B2", "eps"})

TEXTS: Final = words(
    "activation policy type tree map weights_type weights_normalization iou_loss iou_thresh_kind nms_kind yolo_point "
    "lstm_activation"
)
"""Keys whose value is a word."""
LISTS: Final = words("layers from mask anchors steps scales seq_scales counters_per_class")
"""Keys whose value is a list of numbers."""

SAME_AS: Final = "="
ANY: Final = "*"
EFFECTS: Final[Mapping[str, Mapping[str, str]]] = {
    "net": {"inputs": ANY, "time_steps": "1"},
    "convolutional": {
        "stride_x": "=stride",
        "stride_y": "=stride",
        "dilation": "1",
        "antialiasing": "0",
        "share_index": ANY,
        "groups": "1",
        "flipped": "0",
        "cbn": "0",
        "binary": "0",
        "xnor": "0",
        "bin_output": "0",
        "dontload": "0",
        "dontloadscales": "0",
        "numload": "0",
    },
    "connected": {"dontload": "0", "dontloadscales": "0"},
    "maxpool": {"stride_x": "=stride", "stride_y": "=stride", "maxpool_depth": "0", "antialiasing": "0"},
    "route": {"groups": "1"},
    "shortcut": {"alpha": "1", "beta": "1", "weights_type": "none"},
    "upsample": {"scale": "1"},
    "yolo": {"scale_x_y": "1", "new_coords": "0", "map": ANY},
    "region": {"background": "0", "map": ANY},
    "softmax": {"temperature": "1", "tree": ANY},
    "crop": {"noadjust": "0"},
    "reorg": {"reverse": "0", "flatten": "0", "extra": "0"},
    "scale_channels": {"scale_wh": "0"},
    "rnn": {"hidden": ANY, "logistic": "0", "shortcut": "0"},
    "gru": {"tanh": "0"},
    "crnn": {
        "output": ANY,
        "hidden": ANY,
        "output_filters": ANY,
        "hidden_filters": ANY,
        "size": "3",
        "pad": "1",
        "stride": "1",
        "dilation": "1",
        "groups": "1",
        "xnor": "0",
    },
}
"""Keys that change what a network computes, with the value that changes nothing (`=key`: that of another key; `*`:
none). To pass over any other key costs training or display only."""

DEFAULTS: Final[Mapping[str, Mapping[str, str]]] = {
    "convolutional": {"filters": "1", "size": "1", "stride": "1", "pad": "0", "activation": "logistic"},
    "connected": {"activation": "logistic"},
    "maxpool": {"stride": "1", "size": "=stride"},
    "upsample": {"stride": "2"},
    "reorg": {"stride": "1"},
    "route": {"group_id": "0"},
    "shortcut": {"activation": "linear"},
    "yolo": {"classes": "20", "num": "1", "scale_x_y": "1", "new_coords": "0"},
    "region": {"classes": "20", "num": "1"},
}
"""Darknet's own defaults, where a reader has others or none."""
