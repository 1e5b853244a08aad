import json

import numpy as np

from maemem.training.metrics import MetricWriter, read_metrics


def test_rows_are_json_lines(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write_scalars(1, {"loss": 0.5})
    writer.write_scalars(2, {"loss": 0.25, "eval_masked_mse": 1.0})
    writer.close()
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [
        {"step": 1, "loss": 0.5},
        {"step": 2, "loss": 0.25, "eval_masked_mse": 1.0},
    ]


def test_resuming_forgets_the_steps_that_are_done_again(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    for step in range(1, 8):
        writer.write_scalars(step, {"loss": 1 / step})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 8, "lo')  # as a crash leaves it
    writer = MetricWriter(tmp_path, 4)
    writer.write_scalars(5, {"loss": 0.0})
    writer.close()
    rows = read_metrics(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5]
    assert rows[-1]["loss"] == 0.0


def test_pictures_need_no_tensorboard(tmp_path):
    writer = MetricWriter(tmp_path, 0)
    writer.write_images(1, {"reconstruction": np.zeros((4, 4, 3))})
    writer.close()
    assert read_metrics(tmp_path / "metrics.jsonl") == []
