"""Networks of two packages that nobody here wrote: pytorchcv and timm."""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Callable

from torch import nn
from without_torchvision import stand_in_for_torchvision

PYTORCHCV = (
    "shufflenet_g1_w1 shufflenet_g2_w1 shufflenet_g3_w1 shufflenet_g4_w1 shufflenet_g8_w1"
    " shufflenet_g3_wd2 shufflenet_g3_wd4 shufflenetv2_wd2 shufflenetv2_w1 shufflenetv2b_wd2"
    " menet108_8x1_g3 menet160_8x1_g8 menet256_12x1_g4 condensenet74_c4_g4 condensenet74_c8_g8"
    " dicenet_wd5 dicenet_w1 igcv3_wd4 igcv3_w1 mobilenet_wd4 mobilenet_w1 mobilenetv2_w1"
    " mobilenetv3_small_w1 mobilenetv3_large_w1 mnasnet_b1 mnasnet_a1 fbnet_cb efficientnet_b0"
    " ghostnet squeezenet_v1_0 squeezenet_v1_1 resnet18 resnext50_32x4d seresnet50 densenet121"
    " vgg11 alexnet peleenet hardnet39ds espnetv2_wd2 inceptionv3 dpn68 mixnet_s resnesta18"
    " bam_resnet18"
).split()
TIMM = (
    "mobilenetv4_conv_small lcnet_050 edgenext_xx_small convnext_atto repvgg_a0 regnetx_002"
    " efficientformer_l1 fastvit_t8 mobilevit_xxs vit_tiny_patch16_224 levit_128s mixer_s32_224"
).split()
#: Networks that take another size than 224x224.
SIZES = {"inceptionv3": 299, "mobilevit_xxs": 256, "edgenext_xx_small": 256}


@dataclasses.dataclass(frozen=True)
class PackageNetwork:
    """A network of a package.

    Attributes
    ----------
    package, name : str
        Which.
    make : Callable
        Builds it with weights that are drawn.
    size : int
        Rows and columns of its picture.
    """

    package: str
    name: str
    make: Callable[[], nn.Module]
    size: int

    @property
    def is_installed(self) -> bool:
        """Whether the package is there."""
        return importlib.util.find_spec(self.package) is not None


def package_networks() -> list[PackageNetwork]:
    """List them all."""
    return [
        *(package_network("pytorchcv", name) for name in PYTORCHCV),
        *(package_network("timm", name) for name in TIMM),
    ]


def package_network(package: str, name: str) -> PackageNetwork:
    """Give a network of pytorchcv or timm by its name there."""
    make = {"pytorchcv": _pytorchcv, "timm": _timm}[package]
    return PackageNetwork(package, name, lambda: make(name), SIZES.get(name, 224))


def _pytorchcv(name: str) -> nn.Module:
    stand_in_for_torchvision()
    from pytorchcv.model_provider import get_model

    network: nn.Module = get_model(name, pretrained=False)
    return network


def _timm(name: str) -> nn.Module:
    stand_in_for_torchvision()
    import timm

    network: nn.Module = timm.create_model(name, pretrained=False)
    return network
