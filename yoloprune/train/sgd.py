"""Darknet's update (network.c update_network; convolutional_layer.c update_convolutional_layer).

With B images an update, D the sum of deltas times inputs over them, rate l, momentum m, decay d:
u += D - d*B*w (no decay for biases and scales), w += l/B*u, u *= m. Let v be -u/B before that last product: then
v = m*v + (-D/B + d*w), w -= l*v. This is torch's SGD without dampening, on the gradient -D/B of the summed loss over B.
A rate that changes acts the same in both, since neither buffer holds it.
"""

from __future__ import annotations

from torch import nn
from torch.optim import SGD

from yoloprune.darknet.network import Network


def darknet_sgd(network: Network, momentum: float, decay: float) -> SGD:
    """An optimizer whose step is Darknet's, given gradients of the summed loss divided by the images of an update.

    Its learning rate is set before every step (see `set_rate`).
    """
    decayed: list[nn.Parameter] = []
    free: list[nn.Parameter] = []
    for layer, module in zip(network.graph.layers, network.layers, strict=True):
        for spec in layer.tensors():
            if spec.trained:
                (decayed if spec.decay else free).append(getattr(module, spec.name))
    groups = [
        {"params": parameters, "weight_decay": weight_decay}
        for parameters, weight_decay in ((decayed, decay), (free, 0.0))
        if parameters
    ]
    return SGD(groups, lr=0.0, momentum=momentum)


def set_rate(optimizer: SGD, rate: float) -> None:
    """The learning rate of the next step."""
    for group in optimizer.param_groups:
        group["lr"] = rate
