"""Bad input: a table of commands and the one line of each error.

Most are composed, checked and run by the functions that the entry points call; a few by the entry points themselves,
with exit code 1 and no traceback, and a few as processes.
"""

import copy
import functools
import re
import sys

import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf
from tiny import TINY, composed, run_script
from trees import plant

from s2snet.cli import messages, settings
from s2snet.cli.conf_dir import conf_dir
from s2snet.models import build
from s2snet.store import weights

SETTINGS = {
    "train": settings.train_settings, "evaluate": settings.evaluate_settings, "analyse": settings.analyse_settings
}  # fmt: skip


def train(config):
    from s2snet.training.from_config import train

    train(config, "", "")


def evaluate(config):
    from s2snet.evaluation.job import job_of
    from s2snet.evaluation.run import run

    run(job_of(config, "", "", explicit=True, say=lambda *_: None), say=lambda *_: None)


def analyse(config):
    from s2snet.analysis.from_settings import analyse

    analyse(config, "", "", explicit=True, say=lambda *_: None)


RUN = {"train": train, "evaluate": evaluate, "analyse": analyse}
GROUPS = {folder.name for folder in conf_dir().iterdir() if folder.is_dir()}
TRAIN_KEYS = (
    "data, classifier, autoencoder, data_root, runs, stage, seed, recipes, trainer, logger, output, "
    "from_classifier, from_autoencoder, from_vgg16, ckpt_path, overwrite, objective, debug"
)
AE = "runs/digits/autoencoder-segnet_small"
PHOTOS = "data=imagefolder data.root=photos"
TABLE = [  # (script, words, the line; ... stands for anything)
    ("train", "stage=3", "stage=3: allowed are classifier, 1, 2, adversarial"),
    ("train", "stage=clasifier",
     "stage=clasifier (did you mean 'classifier'?): allowed are classifier, 1, 2, adversarial"),
    ("train", "data=webdataset", "data.shards is required: a file, folder, glob or URL; ..."),
    ("train", "data=webdataset data.shards=nowhere", "data.shards=nowhere: no such file or folder: nowhere"),
    ("train", "data=webdataset data.shards=nope://host/a.tar", "data.shards=nope://...: Protocol not known: nope"),
    ("train", "data=webdataset data.shards=x data.shuffle=0", "data.shuffle=0: at least 1"),
    ("train", "data=webdataset data.reject.least_sid=3",
     "unknown setting data.reject.least_sid (did you mean 'least_side'?): allowed here are ..."),
    ("train", "data=nope", "data=nope: allowed are cifar10, ..."),
    ("train", "data=digit", "data=digit (did you mean 'digits'?): allowed are cifar10, ..."),
    ("train", "autoencoder=segnet_smal",
     "autoencoder=segnet_smal (did you mean 'segnet_small'?): allowed are segnet, ..."),
    ("train", "recipe@recipes.stage2=slow", 
     "recipe=slow: allowed are adversarial, adversarial_fast, classifier, stage1, stage2, ..."),
    ("train", "experiment=none", "experiment=none: allowed are audit, index_maps, ..."),
    ("train", "sede=1", "unknown setting sede (did you mean 'seed'?): allowed here are ..."),
    ("train", "+sede=1", f"unknown setting sede (did you mean 'seed'?): allowed here are {TRAIN_KEYS}"),
    ("train", "recipes.stage1.lrr=1", "unknown setting recipes.stage1.lrr (did you mean 'lr'?): allowed here are ..."),
    ("train", "+recipes.stage1.lrr=1", "...lrr..."),
    ("train", "seed=abc", "...seed=abc: Value 'abc' of type 'str' could not be converted to Integer"),
    ("train", "seed=1.5", "...seed=1.5: Value '1.5' of type 'float' could not be converted to Integer"),
    ("train", "overwrite=maybe", "...overwrite=maybe: Value 'maybe' is not a valid bool (type str)"),
    ("train", "data.size=big", "data.size=big: not of the same type as 32 in data/digits.yaml"),
    ("train", "data.size=4", "data.size=4: expected at least 8, the side of the originals"),
    ("train", "data.channels=2", "data.channels=2: expected 1 or 3"),
    ("train", "classifier.widths=8",
     "classifier.widths=8: not of the same type as [16, 32, 64] in classifier/small_cnn.yaml"),
    ("train", "classifier.depth=2", "unknown setting classifier.depth...: allowed here are ..."),
    ("train", "stage=classifier +classifier.width=[2]",
     "small_cnn has no option 'width' (did you mean 'widths'?); ..."),
    ("train", "autoencoder.unpool=index", "unpool='index': allowed are indices, nearest, learned"),
    ("train", "autoencoder.widths=[4]", "widths=[4] and convs=[1, 1] must have the same length, at least 1"),
    ("train", "recipes.stage1.epochs=0", "recipes.stage1.epochs=0: must be at least 1"),
    ("train", "recipes.stage1.save_every=0", "recipes.stage1.save_every=0: must be at least 1"),
    ("train", "recipes.stage1.shift=-1", "recipes.stage1.shift=-1: must be at least 0"),
    ("train", "recipes.stage1.lr=-1", "recipes.stage1.lr=-1.0: must be at least 0"),
    ("train", "recipes.stage1.clip=-1", "recipes.stage1.clip=-1.0: must be at least 0"),
    ("train", "trainer.devices=0", "trainer.devices=0: must be at least 1"),
    ("train", "trainer.workers=-1", "trainer.workers=-1: must be at least 0"),
    ("evaluate", "trainer.devices=0", "trainer.devices=0: must be at least 1"),
    ("train", "recipes.stage1.accumulate=0", "recipes.stage1.accumulate=0: must be at least 1"),
    ("train", "recipes.stage1.accumulate=30",
     "accumulate=30: an optimiser step needs 1920 images and there are 1293; at most 20 here"),
    ("train", "recipes.stage1.warmup=-1", "recipes.stage1.warmup=-1: must be at least 0"),
    ("train", "recipes.stage1.warmup=320", "warmup=320: must be below the 320 optimiser steps of the run"),
    ("train", "recipes.stage1.ema=1", "recipes.stage1.ema=1.0: must be above 0 and below 1"),
    ("train", "recipes.stage1.ema=nan", "recipes.stage1.ema=nan: must be above 0 and below 1"),
    ("train", "recipes.stage1.batch_norm=evel",
     "recipes.stage1.batch_norm=evel (did you mean 'eval'?): allowed are train, eval"),
    ("train", "stage=2 recipes.stage2.cache=dsk",
     "recipes.stage2.cache=dsk (did you mean 'disk'?): allowed are none, memory, disk"),
    ("train", "stage=2 recipes.stage2.cache=disk",
     "recipes.stage2.cache=disk: codes can be kept only of images that stay as they are; "
     "turn off recipes.stage2.shift=2"),
    ("train", "trainer.compile=maybe", "...trainer.compile=maybe: Value 'maybe' is not a valid bool (type str)"),
    ("train", "trainer.sync_batchnorm=on", "trainer.sync_batchnorm=on...: allowed are auto, true, false"),
    ("train", "trainer.sync_batchnorm=true",
     "trainer.sync_batchnorm=true: needs GPUs; on the CPU use auto or false"),
    ("train", "trainer.precision=bf16",
     "trainer.precision=bf16 (did you mean 'bf16-mixed'?): allowed are 32-true, bf16-mixed, 16-mixed"),
    ("train", "trainer.precision=16-mixed",
     "trainer.precision=16-mixed: needs a GPU; on the CPU use bf16-mixed or 32-true"),
    ("train", "recipes.stage1.optimiser=adm",
     "recipes.stage1.optimiser=adm (did you mean 'adam'?): allowed are adam, adamw, sgd"),
    ("train", "recipes.stage1.schedule=step",
     "recipes.stage1.schedule=step: allowed are constant, cosine, one_cycle, poly"),
    ("train", "recipes.stage1.early_stopping=val_acc",
     "recipes.stage1.early_stopping=val_acc...: allowed are val_loss, val_psnr"),
    ("train", "stage=2 recipes.stage2.labels=true", "recipes.stage2.labels=...: allowed are truth, classifier"),
    ("train", "recipes.adversarial.eps=8",
     "recipes.adversarial.eps=8: radii are in [0, 1] pixel units (did you mean 8/255?)"),
    ("train", "recipes.adversarial.eps=8/0", "recipes.adversarial.eps=8/0: not a radius; write 8/255 or a number"),
    ("train", "ckpt_path=last",
     f"ckpt_path=last: nothing to resume, no {AE}/checkpoints/last.ckpt; leave ckpt_path out to start from scratch"),
    ("train", "data=imagefolder", "data.root=null: name the folder with the images, absolute or below data_root (...)"),
    ("train", "data=imagefolder data.root=photo", "data.root=photo: no folder photo; give it absolute or below ..."),
    ("train", "data=imagenet", "data.root=imagenet: no folder imagenet; give it absolute or below data_root (...)"),
    ("train", f"{PHOTOS} data.labels=names.csv", "data.labels=names.csv: expected folders, none or a CSV file..."),
    ("train", f"{PHOTOS} data.classes=3", "data.classes=3: photos has 2 classes (cat, dog)"),
    ("train", f"{PHOTOS}/cat", "photos/cat/0.png is not in a class folder; use data.labels=none for images ..."),
    ("train", f"{PHOTOS} data.test_every=1",
     "data=imagefolder: no training images; all 12 are test images"),
    ("train", f"{PHOTOS} data.labels=none stage=2 recipes.stage2.labels=classifier",
     "data.classes=null: unlabelled images do not determine the classifier's number of classes; give ..."),
    ("train", f"{PHOTOS} data.channels=1",
     "mean=[0.485, 0.456, 0.406] has 3 values; expected one, or as many as channels, 1 (data.mean, data.std)"),
    ("train", f"{PHOTOS} data.labels=none stage=classifier",
     "data=imagefolder has no labels: allowed are stage=1, and stage=2 with ...labels=classifier"),
    ("train", f"{PHOTOS} stage=classifier classifier.classes=5",
     "small_cnn predicts 5 classes; the data set has 2. data.classes=5 is allowed if its labels are numbers below 5"),
    ("train", "stage=classifier data.size=8 classifier.widths=[2,2,2,2,2]",
     "small_cnn cannot take images of 1 x 8 x 8: ...too small"),
    ("train", "data.size=8 autoencoder.widths=[2,2,2,2] autoencoder.convs=[1,1,1,1]",
     "segnet_small cannot take images of 1 x 8 x 8: images of 8 x 8 are too small for 4 poolings: ..."),
    ("train", "recipes.stage1.scale=[8,100]",
     "recipes.stage1.scale=[8, 100]: null, or the least and the most share of the area, such as [0.08, 1.0]"),
    ("train", "recipes.stage1.flip=often", "...flip=often: Value 'often' is not a valid bool (type str)"),
    ("train", "stage=2",
     f"stage 2 needs the weights of stage=1; none at {AE}/weights.safetensors. "
     "Run `python train.py stage=1` first, or give from_autoencoder=FILE"),
    ("train", "stage=2 from_autoencoder=none.safetensors",
     "from_autoencoder=none.safetensors: no such file. Run `python train.py stage=1` first, or give ..."),
    ("train", "stage=2 from_autoencoder=truncated.safetensors",
     "truncated.safetensors: truncated or not a .safetensors file (...)"),
    ("train", "stage=2 from_autoencoder=classifier.safetensors",
     "classifier.safetensors: holds a small_cnn; stage 2 needs autoencoder weights there (segnet, segnet_small, unet)"),
    ("train", "stage=2 from_autoencoder=text.safetensors",
     "text.safetensors: truncated or not a .safetensors file (...)"),
    ("train", "stage=2 from_autoencoder=hf://user/file",
     "hf://user/file: not an address; write hf://user/repo/file or hf://user/repo@revision/file"),
    ("train", "stage=1 output=finished",
     "finished holds a finished run: overwrite=true to retrain, output=FOLDER to write elsewhere"),
    ("train", "stage=classifier classifier=torchvision classifier.arch=resnet5 data.channels=3",
     "classifier.arch=resnet5 (did you mean 'resnet50'?): allowed are alexnet, ..."),
    ("train", "stage=classifier classifier=torchvision", "classifier.arch=None: allowed are alexnet, ..."),
    ("train", "stage=classifier classifier=torchvision classifier.arch=alexnet",
     "classifier.channels=1: alexnet takes 3 (data.channels=3 repeats gray images)"),
    ("train", "stage=classifier classifier=torchvision classifier.arch=alexnet data.channels=3",
     "alexnet cannot take images of 3 x 16 x 16: ..."),
    ("train", "stage=classifier classifier=squeezenet1_1 data.channels=3",
     "classifier.weights=IMAGENET1K_V1: nothing to train; classifier.weights=null trains the network"),
    ("train", "stage=classifier classifier=custom", "classifier.target=None: write my_package.my_module:function"),
    ("train", "stage=classifier classifier=custom classifier.options.width=4",
     "unknown setting classifier.options.width: classifier.options is empty; +classifier.options.width=VALUE adds "
     "to it"),
    ("train", "stage=classifier classifier=custom classifier.target=nowhere.nets:build",
     "classifier.target=nowhere.nets:build: no module nowhere, here or installed"),
    ("train", "stage=classifier classifier=custom classifier.target=torch.nn:Linearr",
     "classifier.target=torch.nn:Linearr (did you mean 'Linear'?): torch.nn has no function 'Linearr'"),
    ("train", "stage=classifier classifier=custom classifier.target=torch.nn:Flatten",
     "torch.nn.Flatten cannot take images of 1 x 16 x 16: torch.nn:Flatten: wrong shape in eval mode: "
     "expected logits (2, 10), got (2, 256)"),
    ("train", "from_vgg16=IMAGENET1K_V2",
     "from_vgg16=IMAGENET1K_V2 (did you mean 'IMAGENET1K_V1'?): no such file, and vgg16 has IMAGENET1K_V1, ..."),
    ("train", "from_vgg16=state.pth",
     "state.pth: VGG16 does not fit this encoder: 0 of 4 tensors fit; missing: conv11.weight, ..."),
    ("train", "stage=2 from_autoencoder=state.pth",
     "state.pth: not the weights of this SegNet: 0 of 26 tensors fit; missing: conv11.weight, ..."),
    ("train", "logger=wand", "logger=wand (did you mean 'wandb'?): allowed are csv, wandb"),
    ("train", "logger.name=tensorboard", "logger.name=tensorboard: allowed are csv, wandb"),
    ("train", "logger.pictures=-1", "logger.pictures=-1: must be at least 0"),
    ("train", "objective=val_psn", "objective=val_psn (did you mean 'val_psnr'?): allowed are val_loss, val_psnr"),
    ("train", "trainer=tpu", "trainer=tpu...: allowed are auto, ddp_cpu, gpu"),
    ("train", "stage=[1", "..."),
    ("train", "stage", "...missing EQUAL..."),
    ("evaluate", "audit=quik", "audit=quik (did you mean 'quick'?): allowed are off, quick, full"),
    ("evaluate", "audit=off strict=true",
     "strict=true audit=off: without an audit nothing can fail; use audit=quick or full"),
    ("evaluate", "budgets.linf=[8]", "budgets.linf=8: radii are in [0, 1] pixel units (did you mean 8/255?)"),
    ("evaluate", "budgets.linf=[8/255,x]", "budgets.linf=x: not a radius; write 8/255 or a number"),
    ("evaluate", "budgets.linf=[-0.1]", "budgets.linf=-0.1: a radius is at least 0"),
    ("evaluate", "budgets.l2=[nan]", "budgets.l2=nan: a radius is at least 0"),
    ("evaluate", "+budgets.l3=[1]", "budgets' norm=l3...: allowed are linf, l2..."),
    ("evaluate", "images=0", "images=0: must be at least 1"),
    ("evaluate", "chunk=0", "chunk=0: must be at least 1"),
    ("evaluate", "samples=-1", "samples=-1: must be at least 0"),
    ("evaluate", "defence=[]", "defence=[]: at least one defence is needed, such as defence=[none]"),
    ("evaluate", "defence=[non]",
     "defence=non (did you mean 'none'?): allowed are adversarial, autoencoder, bit_depth, ..."),
    ("evaluate", "attack=[pdg]", "attack=pdg (did you mean 'pgd'?): allowed are ..."),
    ("evaluate", "threat=[grey_box]",
     "threat=grey_box (did you mean 'gray_box'?): allowed are gray_box, query, transfer, universal, white_box"),
    ("evaluate", "attack.apgd.stepz=3",
     "unknown setting attack.apgd.stepz (did you mean 'steps'?): allowed here are ..."),
    ("evaluate", "runs=kept defence=[none] threat=[gray_box,query]",
     "threat.query: uses none of the chosen attacks; add square to attack=[...], or leave it out"),
    ("evaluate", "runs=kept defence=[none] attack=[fgsm,square]",
     "attack.square: no chosen threat uses this attack; add query to threat=[...], or leave it out"),
    ("evaluate", "trainer.gpu=1", "unknown setting trainer.gpu: use trainer=gpu to select it"),
    ("evaluate", "data.cifar10.root=x", "unknown setting data.cifar10: use data=cifar10 to select it"),
    ("evaluate", "attack.pgd.steps=3", "attack.pgd is not selected: use attack=[fgsm,apgd,apgd_margin,pgd]"),
    ("evaluate", "attack.apgd_margin.steps=many",
     "attack.apgd_margin.steps=many: not of the same type as 100 in attack/apgd.yaml"),
    ("evaluate", "runs=kept defence=[none] +attack.apgd_margin.stepz=3",
     "attack.apgd_margin.stepz (did you mean 'steps'?): apgd has no such option; allowed are steps, ..."),
    ("evaluate", "runs=kept defence=[none] attack.apgd.steps=0",
     "attack.apgd: invalid options of apgd: steps=0: at least 1"),
    ("evaluate", "runs=kept defence=[none] threat.white_box.routes=[exat]",
     "threat.white_box.routes=exat (did you mean 'exact'?): allowed are exact, identity, ..."),
    ("evaluate", "runs=kept defence=[none] data.size=20",
     "defence none was trained on data.size=16; here it is 20"),
    ("evaluate", "runs=kept defence=[s2snet]", "s2snet: no weights at kept/digits/s2snet-segnet_small-small_cnn/..."),
    ("evaluate", "runs=kept defence=[none] defence.none.classifier=truncated.safetensors",
     "truncated.safetensors: truncated or not a .safetensors file (...)"),
    ("evaluate", "defence=[none] classifier.weights=state.pth",
     "state.pth: not the weights of this small_cnn: 0 of 14 tensors fit; missing: features.0.weight, ..."),
    ("evaluate", "defence=[none] classifier.weights=nowhere.pth",
     "classifier.weights=nowhere.pth: no such file; point data_root (S2SNET_DATA) to the folder that has it, or ..."),
    ("evaluate", "defence=[none] classifier=torchvision classifier.arch=resnet18 classifier.weights=DEFAUL",
     "classifier.weights=DEFAUL (did you mean 'DEFAULT'?): no such file, and resnet18 has IMAGENET1K_V1, DEFAULT"),
    ("evaluate", "runs=kept defence=[s2snet] defence.s2snet.purifier=state.pth",
     "state.pth: not the weights of this SegNet: ..."),
    ("evaluate", "runs=kept defence=[s2snet] defence.s2snet.purifier=hf://user/file",
     "hf://user/file: not an address; write hf://user/repo/file or hf://user/repo@revision/file"),
    ("evaluate", "weights=nowhere", "weights=nowhere: no such folder"),
    ("evaluate", f"{PHOTOS} data.labels=none",
     "data=imagefolder has no labels: an evaluation needs them"),
    ("evaluate", f"{PHOTOS} data.channels=1 weights=kept/digits defence=[none]",
     "the classifier of none predicts 10 classes; the data set has 2. data.classes=10 is allowed if its labels ..."),
    ("evaluate", "seed=x", "seed=['x']: an integer, or several such as [0,1,2]"),
    ("evaluate", "seed=[0,1.5]", "seed=[0, 1.5]: an integer, or several such as [0,1,2]"),
    ("evaluate", "seed=true", "seed=[True]: an integer, or several such as [0,1,2]"),
    ("evaluate", "seed=[]", "seed=[]: an integer, or several such as [0,1,2]"),
    ("evaluate", "keep=some", "keep=some...: allowed are all, sample, none"),
    ("evaluate", "keep=sampl", "keep=sampl (did you mean 'sample'?): allowed are all, sample, none"),
    ("evaluate", "trainer.precision=8", "trainer.precision=8: allowed are 32-true, bf16-mixed, 16-mixed"),
    ("evaluate", "trainer.precision=bf16",
     "trainer.precision=bf16 (did you mean 'bf16-mixed'?): allowed are 32-true, bf16-mixed, 16-mixed"),
    ("evaluate", "trainer.compile=true", "trainer.compile=true: only training compiles; an evaluation has fast=true"),
    ("evaluate", "threat.white_box.draws=0", "threat.white_box.draws=0: must be at least 1"),
    ("evaluate", "threat.white_box.fit_steps=0", "threat.white_box.fit_steps=0: must be at least 1"),
    ("evaluate", "threat.white_box.temperature=0", "threat.white_box.temperature=0.0: must be above 0"),
    ("evaluate", "threat.white_box.smoothing=-1", "threat.white_box.smoothing=-1.0: must be above 0"),
    ("evaluate", "threat.white_box.smoothing=nan", "threat.white_box.smoothing=nan: must be above 0"),
    ("evaluate", "threat.white_box.draw=2",
     "unknown setting threat.white_box.draw (did you mean 'draws'?): allowed here are ..."),
    ("evaluate", "plan=maybe", "...plan=maybe: Value 'maybe' is not a valid bool (type str)"),
    ("evaluate", "runs=kept defence=[none] adversarial=nope.pt", "adversarial=nope.pt: no such file"),
    ("evaluate", "runs=kept defence=[none] adversarial=[text.safetensors]",
     "adversarial=text.safetensors: cannot be read (...)"),
    ("evaluate", "runs=kept defence=[none] adversarial=classifier.safetensors",
     "adversarial=classifier.safetensors: expected a tensor named 'adversarial', got ..."),
    ("evaluate", "runs=kept defence=[none] attack=[cw] ~budgets.l2",
     "attack.cw: supports l2, and budgets has none of them; add budgets.l2=[]"),
    ("evaluate", "runs=kept defence=[none] attack=[fgsm] budgets.linf=[]",
     "attack.fgsm: supports linf, l2, and budgets has none of them; add budgets.linf=[0.5]"),
    ("evaluate", "runs=kept defence=[none] attack.apgd.targets=nxt",
     "attack.apgd.targets=nxt (did you mean 'next'?): allowed are next, random, least_likely"),
    ("evaluate", "runs=kept defence=[none] attack.apgd.loss=crossentropy",
     "attack.apgd.loss=crossentropy (did you mean 'cross_entropy'?): allowed are cross_entropy, ..."),
    ("evaluate", "runs=kept defence=[none] threat=[transfer] threat.transfer.sources=[nobody]",
     "threat.transfer.sources=nobody...: ...none"),
    ("evaluate", "trainer.accelerator=gpu runs=kept defence=[none]",
     "trainer.accelerator=gpu: expected a GPU, and torch finds none; use trainer=auto for the CPU"),
    ("analyse", "runs=kept", "study=[]: expected study=NAME or study=[NAME,NAME]; allowed are directions, ..."),
    ("analyse", "runs=kept study=[gradient]",
     "study=gradient (did you mean 'gradients'?): allowed are directions, ..."),
    ("analyse", "runs=kept study=[gradients] study.gradients.image=9",
     "unknown setting study.gradients.image (did you mean 'images'?): allowed here are ..."),
    ("analyse", "runs=kept study=[gradients] study.gradients.images=few",
     "study.gradients.images=few: not of the same type as 360 in study/gradients.yaml"),
    ("analyse", "runs=kept study=[directions] defence=[s2snet]",
     "s2snet: no weights at ...; `python train.py stage=2` makes them"),
    ("analyse", "runs=kept study=[directions] trainer.devices=2",
     "trainer.devices=2: a study runs in one process, on one device"),
    ("evaluate", "runs=kept defence=[subspace]",
     "subspace: no weights at results/digits/analysis/directions/subspace.safetensors; "
     "`python analyse.py study=[directions]` makes them"),
]  # fmt: skip
MAIN = [  # of each kind of error one, and what only Hydra's main can tell
    ("train", "-m stage=1,2 trainer=ddp_cpu",
     "-m with 2 devices would run the whole sweep once per device; use a shell loop instead: "
     "for stage in 1 2; do python train.py stage=$stage trainer=ddp_cpu; done"),
    ("train", "-m hydra/launcher=nope", "hydra/launcher=nope: not installed; pip install -e .[slurm]"),
    ("train", "data=digit", "data=digit (did you mean 'digits'?): allowed are cifar10, ..."),
    ("train", "sede=1", "unknown setting sede (did you mean 'seed'?): allowed here are ..."),
    ("train", "stage", "...missing EQUAL..."),
    ("evaluate", "audit=quik", "audit=quik (did you mean 'quick'?): allowed are off, quick, full"),
    ("analyse", "study=[directions] weights=nowhere", "weights=nowhere: no such folder"),
]  # fmt: skip


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A folder with what the commands of the table name: foreign, truncated, finished."""
    folder = tmp_path_factory.mktemp("prepared")
    module, facts = build("small_cnn", widths=[8, 16]), {"stage": "classifier", "input": {"channels": 1, "size": 16}}
    weights.save(module, folder / "classifier.safetensors", **facts)
    weights.save(module, folder / "kept/digits/classifier-small_cnn/weights.safetensors", **facts)
    whole = (folder / "classifier.safetensors").read_bytes()
    (folder / "truncated.safetensors").write_bytes(whole[: len(whole) // 2])
    (folder / "text.safetensors").write_text("no weights")
    plant(folder / "photos", [f"{kind}/{number}.png" for kind in ("cat", "dog") for number in range(6)])
    torch.save({"fc.weight": torch.zeros(3)}, folder / "state.pth")
    (folder / "finished").mkdir()
    (folder / "finished/weights.safetensors").write_bytes(whole)
    return folder


@functools.cache
def chosen(script: str, *words: str):
    """The config of a command with its choices of groups; composing it takes longer than all that follows."""
    return composed(script, *words)


def config_of(script: str, words: list[str]):
    """The config that Hydra composes: choices by itself, values as it sets them in the config that they give."""
    values = [
        word for word in words if word.partition("=")[0] not in GROUPS and word[0] not in "+~" and "@" not in word
    ]
    config = copy.deepcopy(chosen(script, *(word for word in words if word not in values)))
    for override in OverridesParser.create().parse_overrides(values):
        OmegaConf.update(config, override.key_or_group, override.value(), merge=True)
    return config


def line_of(script: str, words: list[str], whole: bool = False) -> str:
    """The line of a command's error: composed, checked and run as the entry point does it, without Hydra's main.

    `whole` lets Hydra compose everything, which adds the word to what OmegaConf says of its value.
    """
    with pytest.raises(Exception) as raised:
        config = composed(script, *words) if whole else config_of(script, words)
        RUN[script](SETTINGS[script](config))
    line = messages.line_of(raised.value)
    assert line is not None, raised.value
    return f"error: {line}"


def call(script: str, words: list[str], monkeypatch, capfd) -> tuple[int, str, str]:
    """(exit code, stdout, stderr) of a command, through the function that the console script calls."""
    from s2snet.cli import analyse, evaluate, train

    monkeypatch.setattr(sys, "argv", [f"{script}.py", *words])
    capfd.readouterr()
    with pytest.raises(SystemExit) as ended:
        {"train": train, "evaluate": evaluate, "analyse": analyse}[script].main()
    out = capfd.readouterr()
    return ended.value.code, out.out, out.err


def is_the_line(line: str, expected: str) -> bool:
    return re.fullmatch(re.escape("error: " + expected).replace(re.escape("..."), ".*"), line) is not None


def stands_in(word: str, tiny: str) -> bool:
    """Return whether a word of the command replaces a word of TINY: the same key, or another classifier."""
    another = tiny.startswith("classifier.") and word.startswith("classifier=")
    return another or word.startswith(tiny.partition("=")[0])


@pytest.mark.parametrize("script, words, expected", TABLE, ids=[f"{script} {words}" for script, words, _ in TABLE])
def test_bad_input_is_one_line(script, words, expected, prepared, monkeypatch):
    if "gpu" in words and torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    monkeypatch.chdir(prepared)
    given = [word for word in TINY if not any(stands_in(other, word) for other in words.split())]
    line = line_of(script, [*words.split(), *given], whole=expected.startswith("..."))
    assert "\n" not in line
    assert is_the_line(line, expected), line


@pytest.mark.parametrize("script, words, expected", MAIN, ids=[f"{script} {words}" for script, words, _ in MAIN])
def test_the_entry_point_ends_with_that_line(script, words, expected, prepared, monkeypatch, capfd):
    monkeypatch.chdir(prepared)
    code, out, err = call(script, [*words.split(), *TINY], monkeypatch, capfd)
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert code == 1 and out == ""
    assert lines == err.splitlines()[-1:]
    assert is_the_line(lines[0], expected), lines[0]
    assert "Traceback" not in err


@pytest.mark.parametrize("script, words, expected", [
    ("train", "stage=3", "stage=3: allowed are classifier, 1, 2, adversarial"),
    ("train", "stage=2 from_autoencoder=truncated.safetensors", "truncated.safetensors: truncated or not a ..."),
    ("evaluate", "budgets.linf=[8]", "budgets.linf=8: radii are in [0, 1] pixel units (did you mean 8/255?)"),
])  # fmt: skip
def test_bad_input_as_a_process(script, words, expected, prepared):
    done = run_script(script, *words.split(), folder=prepared)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert is_the_line(line, expected), line


def test_debug_shows_the_traceback(monkeypatch, capfd):
    from s2snet.cli import train

    monkeypatch.setattr(sys, "argv", ["train.py", "stage=3", "debug=true"])
    with pytest.raises(ValueError):
        train.main()


def test_our_own_errors_keep_their_traceback(monkeypatch):
    from s2snet.cli import messages

    monkeypatch.setattr(sys, "argv", ["train.py"])
    with pytest.raises(ZeroDivisionError):
        messages.run(lambda: 1 / 0)
