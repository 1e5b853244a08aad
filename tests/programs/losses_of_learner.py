"""The losses of a few steps of a learner, on the devices of this process: KIND FSDP FOLDER."""

import dataclasses
import json
import pathlib
import sys

from maemem.stages import train
from maemem.training.fit import prepare
from maemem.training.mesh import place
from tests.learners.test_contract import config_of

kind, fsdp, folder = sys.argv[1:]
config, stage = config_of(kind)
config.unlock()[stage].batch_size = config[stage].eval_crops = 8
ready = train.prepare(config.lock(), pathlib.Path(folder), stage)
run = dataclasses.replace(ready.run, fsdp=fsdp == "True")
mesh, _, make, step = prepare(ready.learner, run, ready.like)
state, losses = make(), []
for first in (0, 8, 16):
    state, metrics = step(state, place(ready.read(range(first, first + 8)), mesh))
    losses.append(float(metrics["loss"]))
print(json.dumps(losses))
