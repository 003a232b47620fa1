"""Build timm's classifiers by name, and find their published weights (extra `timm`)."""

from collections.abc import Sequence

from s2snet import torchvision_cpu
from s2snet.config.choices import nearest
from s2snet.models.normalised import Normalised
from s2snet.models.published import Entry


def timm_classifier(
    arch: str,
    channels: int = 3,
    classes: int = 1000,
    mean: Sequence[float] = (0.485, 0.456, 0.406),
    std: Sequence[float] = (0.229, 0.224, 0.225),
) -> Normalised:
    """Build the untrained network: images [B, C, H, W] in [0, 1] -> logits [B, classes].

    Raises ValueError for an unknown name, and if timm is not installed.
    """
    timm = _timm(arch)
    return Normalised(
        timm.create_model(arch, pretrained=False, in_chans=channels, num_classes=classes), mean, std, channels
    )


def timm_weights(arch: str, name: str) -> Entry:
    """Return timm's weights of a network (`resnet18`), or of one of its tags (`resnet18.a1_in1k`)."""
    timm = _timm(arch)
    if name != "pretrained":
        near = nearest(name, ["pretrained"])
        raise ValueError(f"classifier.weights={name}{near}: no such file; timm's own weights are called pretrained")
    known = timm.get_pretrained_cfg(arch)
    if known is None or not (known.hf_hub_id or known.url):
        raise ValueError(f"classifier.weights=pretrained: timm has no weights of {arch}")
    if known.hf_hub_id:
        from huggingface_hub import hf_hub_url

        url = hf_hub_url(known.hf_hub_id, known.hf_hub_filename or "model.safetensors")
    else:
        url = known.url
    ending = url.rpartition(".")[2]
    file = ".".join(part for part in (known.architecture, known.tag, ending) if part)
    return Entry(url, file, tuple(known.mean), tuple(known.std), known.input_size[-1])


def _timm(arch: str):
    torchvision_cpu.patch()
    try:
        import timm
    except ModuleNotFoundError:
        raise ValueError("classifier=timm needs timm: pip install -c constraints.txt -e .[timm]") from None
    # is_model checks only the name before the dot; a name with a colon would be searched for outside of timm
    architecture, _, tag = str(arch).partition(".")
    if architecture not in timm.list_models():
        names = timm.list_models()
        raise ValueError(
            f"classifier.arch={arch}{nearest(architecture, names)}: allowed are the {len(names)} of timm.list_models()"
        )
    tags = [known.partition(".")[2] for known in timm.list_pretrained(f"{architecture}.*")]
    if tag and tag not in tags:
        raise ValueError(
            f"classifier.arch={arch}{nearest(tag, tags)}: {architecture} has {', '.join(tags) or 'no tag'}"
        )
    return timm
