"""Train a purifier for a classifier of your own, attack both, and print the table.

    python examples/own_classifier.py

Takes two minutes on two cores. Replace the first block with your own module, images in [0, 1] and labels.
"""

import torch
from sklearn.datasets import load_digits
from torch import nn

import s2snet

digits = load_digits()
images, labels = torch.tensor(digits.images).float()[:, None] / 16, torch.tensor(digits.target)
train, test = (images[:1400], labels[:1400]), (images[1400:], labels[1400:])
classifier = nn.Sequential(nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 36, 10))
optimiser = torch.optim.Adam(classifier.parameters(), lr=3e-3)
for _ in range(60):
    optimiser.zero_grad()
    nn.functional.cross_entropy(classifier(train[0]), train[1]).backward()
    optimiser.step()
classifier.eval()

purifier = s2snet.train_purifier(classifier, train, options={"widths": [32, 64], "convs": [1, 1]}, output="runs/own")
defended = s2snet.Defended(purifier, classifier)
rows = s2snet.evaluate({"none": classifier, "mine": defended}, test, train=train, output="results/own")
for line in rows.attrs["table"]:
    if line["threat"] in ("clean", "worst_case"):
        print(f"{line['defence']:5} {line['threat']:10} {line['accuracy']:.1%}")
