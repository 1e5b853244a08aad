import json
import pathlib
import subprocess
import sys

import pytest
from absl import app
from absl.testing import flagsaver

from benchmarks import recipes, run
from benchmarks.arms import check_scores, draw_learning
from benchmarks.comparisons import COMPARISONS
from benchmarks.operations import collective_bytes
from benchmarks.race import ROOT, Side, check, race, summary
from benchmarks.runs import settings
from benchmarks.table import MARKERS, processor, sections, tables, write
from maemem.scores.registry import columns
from tests import runs

CEILING = {"gflop_per_second": [10.0, 20.0, 10.0], "gb_per_second": [1.0, 1.0, 1.0]}


def test_workers_take_turns():
    side = Side(sys.executable, "tests.programs.side", {"amount": 3})
    raced = race({"ours": side, "peer": side._replace(work={"amount": 4})}, threads=1, repeats=2)
    # The first step is to warm up, and so is the first of every turn.
    assert raced["ours"]["turn"] == raced["peer"]["turn"] == [3, 5]
    assert (raced["ours"]["result"], raced["peer"]["result"]) == ([15], [20])
    assert len(raced["ours"]["seconds"]) == 2
    assert 0 < raced["peer"]["peak_gib"] < 10
    assert "numpy" in raced["peer"]["versions"]


def test_a_worker_that_fails_ends_the_race():
    side = Side(sys.executable, "tests.programs.side", {"amount": 3, "fails": True})
    with pytest.raises(RuntimeError, match="worker stopped"):
        race({"ours": side}, threads=1, repeats=1)


def test_ratios_are_of_the_same_turn():
    ours = {"seconds": [1.0, 2.0, 10.0], "amount": 4, "gflop": 5.0}
    peer = {"seconds": [3.0, 4.0, 20.0], "amount": 4}
    found = summary({"ours": ours, "peer": peer, "ceiling": CEILING})
    assert found["ratio"] == {"median": 2.0, "min": 2.0, "max": 3.0}
    assert found["per_second"] == {"ours": 2.0, "peer": 1.0}
    assert found["share_of_gflop_per_second"]["ours"] == pytest.approx(0.125)
    assert "share_of_gb_per_second" not in found


def test_sides_that_differ_are_refused():
    ours = {"amount": 1, "parameters": 100, "result": [1.0]}
    check(ours, ours, within=0.0)
    check(ours, {**ours, "parameters": 101}, within=0.01)
    for other, within in (
        ({**ours, "amount": 2}, None),
        ({**ours, "result": [1.1]}, None),
        ({**ours, "parameters": 101}, 0.0),
    ):
        with pytest.raises(RuntimeError):
            check(ours, other, within)


def row(**fields) -> dict:
    side = {"seconds": [1.0], "amount": 2, "peak_gib": 1.5, "versions": {"torch": "9"}}
    raced = {"ours": {**side, "parameters": 1000}, "peer": {**side, "parameters": 1000}}
    return {
        **{"name": "a", "work_name": "work", "versus": "them", "unit": "crops", "repeats": 1},
        **{"machine": {"cpu": "chip", "cores": 2}, "threads": 2, "commit": "c", "date": "d"},
        **raced,
        **summary({**raced, "ceiling": {name: each[:1] for name, each in CEILING.items()}}),
        "others_cores": [0.0, 0.1],
        **fields,
    }


def test_tables_mark_what_was_measured_on_a_busy_machine():
    quiet, busy = tables({"a": [row()]}), tables({"a": [row(others_cores=[0.0, 1.0])]})
    assert "| work | them, torch 9 | 2 crops | 2 crops | **1** (1, 1) |" in quiet
    assert "busy machine" not in quiet
    assert "busy machine" in busy


def test_tables_have_cold_starts():
    median = {"empty": 20.0, "filled": 5.0, "peer": 4.0}
    gpu = tables({"cold_start": [row(median_seconds=median)]})
    assert "| compiled | from the cache | peer |\n" in gpu
    assert "| work | 20.0 s | 5.0 s | 4.0 s |\n" in gpu
    cpu = tables({"cold_start": [row(median_seconds={**median, "memory": 1.0})]})
    assert "| work | 20.0 s | 5.0 s | 4.0 s | 1.0 s |" in cpu


def test_processors_have_tables_of_their_own():
    accelerated = row(name="b", ours={**row()["ours"], "device": "accelerator"})
    assert [processor(each) for each in (row(), accelerated)] == ["chip", "accelerator"]
    said = sections({"chip": {"a": [row()]}, "accelerator": {"b": [accelerated]}})
    first, second = said.split("### accelerator")
    assert first.startswith("### chip")
    assert "- a: d, commit c" in first
    assert "- a: " not in second
    assert "- b: d, commit c" in second


def test_results_of_other_processors_and_comparisons_are_kept(tmp_path: pathlib.Path):
    (tmp_path / "performance.md").write_text("\n".join(MARKERS["cpu"]))
    with flagsaver.as_parsed(output=str(tmp_path), device="cpu"):
        for name, cpu, commit in (
            ("scores", "old", "a"),
            ("mae_3d", "old", "b"),
            ("scores", "new", "c"),
            ("scores", "old", "d"),
        ):
            machine = {"cpu": cpu, "cores": 2}
            run.keep(name, [row(name=name, machine=machine, commit=commit)])
    results = json.loads((tmp_path / "performance.json").read_text())
    said = {
        cpu: [(name, rows[0]["commit"]) for name, rows in each.items()]
        for cpu, each in results.items()
    }
    assert said == {"old": [("mae_3d", "b"), ("scores", "d")], "new": [("scores", "c")]}
    page = (tmp_path / "performance.md").read_text()
    assert [line for line in page.splitlines() if "###" in line] == ["### old", "### new"]


def test_writing_keeps_the_prose(tmp_path: pathlib.Path):
    page = tmp_path / "page.md"
    (begin, end), (begin_gpu, end_gpu) = MARKERS["cpu"], MARKERS["gpu"]
    page.write_text(f"before\n{begin}\nold\n{end}\n{begin_gpu}\n{end_gpu}\nafter\n")
    write(page, "new", "cpu")
    write(page, "newer", "cpu")
    write(page, "other", "gpu")
    expected = f"{begin}\n\nnewer\n\n{end}\n{begin_gpu}\n\nother\n\n{end_gpu}"
    assert page.read_text() == f"before\n{expected}\nafter\n"
    page.write_text("no markers")
    with pytest.raises(ValueError, match="must have the lines"):
        write(page, "new", "cpu")


def test_recipes_are_compared_where_the_worst_one_ended(tmp_path: pathlib.Path):
    record = {"config": {"pretrain": {"batch_size": 60}}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    (tmp_path / "pretrain").mkdir()
    rows = [
        {"step": 1, "crops_per_second": 1.0},
        {"step": 2, "crops_per_second": 0.5, "eval_masked_mse": 0.9},
        {"step": 4, "crops_per_second": 1.0, "eval_masked_mse": 0.7},
    ]
    lines = (json.dumps(row) + "\n" for row in rows)
    (tmp_path / "pretrain" / "metrics.jsonl").write_text("".join(lines))
    slow = recipes.curve(tmp_path)
    assert slow == recipes.Curve([3.0, 5.0], [0.9, 0.7])
    fast = recipes.Curve([1.0, 2.0, 3.0], [0.8, 0.7, 0.6])
    lines = recipes.table({"slow": slow, "fast": fast}).splitlines()
    assert "minutes to 0.700" in lines[0]
    assert lines[2:] == ["| slow | 5.0 | 0.700 | 5.0 |", "| fast | 3.0 | 0.600 | 2.0 |"]


@pytest.mark.parametrize("name", COMPARISONS)
def test_comparisons_have_two_sides(name: str):
    comparison = COMPARISONS[name]
    assert (ROOT / "benchmarks" / "ours" / f"{comparison.ours}.py").exists()
    assert (ROOT / "benchmarks" / "peers" / f"{comparison.peer}.py").exists()
    works = (*comparison.work.values(), *comparison.gpu.values())
    assert all(comparison.smoke.keys() <= work.keys() for work in works)


def test_arms_refuse_mistakes_before_they_run():
    check_scores(list(columns()))
    with pytest.raises(app.UsageError, match="'arand'"):
        check_scores(["dice", "arand"])
    assert settings(["a.b=c=d"]) == {"a.b": "c=d"}
    with pytest.raises(app.UsageError, match="--set=FIELD=VALUE"):
        settings(["seed"])


def test_arms_draw_their_own_runs_also_after_a_kill(tmp_path: pathlib.Path):
    row = '{"step": 1, "eval_loss": 0.5, "eval_agreement": 0.8}\n'
    for folder, text in (("scratch-0", row + row[:20]), ("other-0", "{")):
        (tmp_path / folder / "finetune").mkdir(parents=True)
        (tmp_path / folder / "finetune" / "metrics.jsonl").write_text(text)
    draw_learning(tmp_path, ["scratch"], ["0"])
    assert (tmp_path / "arms.png").exists()


def test_a_folder_without_the_page_is_refused_before_anything_is_measured(tmp_path: pathlib.Path):
    command = [sys.executable, "-m", "benchmarks.run", "scores", f"--output={tmp_path}"]
    command += [f"--peers={sys.executable}"]
    said = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert said.returncode != 0
    assert "copy docs/performance.md there" in said.stdout + said.stderr


@pytest.mark.slow
def test_sides_agree():
    # Their peers are installed here; those of the others are not.
    command = [sys.executable, "-m", "benchmarks.run", "scores", "targets", "--smoke"]
    subprocess.run([*command, f"--peers={sys.executable}"], check=True, cwd=ROOT)


def test_data_parallelism_moves_one_gradient_and_nothing_else():
    settings = {"model.encoder.width": 48, "model.encoder.depth": 2, "data.crop_zyx": "(4,64,64)"}
    said = subprocess.run(
        [
            *(sys.executable, "-m", "benchmarks.collectives", "--config=configs/demo.py", "--one"),
            *(f"--config.{name}={value}" for name, value in settings.items()),
        ],
        env=runs.environment(4),
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    rows = json.loads(said.splitlines()[-1])
    data, fsdp = rows["data"], rows["fsdp"]
    assert data["moved"].keys() == {"all-reduce"}
    # Beside the gradient there are the loss and what is logged.
    assert 0 <= data["moved"]["all-reduce"] - data["parameters"] < 100
    assert data["split"] == 0 < fsdp["split"] < fsdp["parameters"] == data["parameters"]
    # Parameters that are split are gathered once at most, and gradients are reduced once.
    assert 0 < fsdp["moved"]["all-gather"] <= 1.1 * fsdp["split"]
    assert sum(fsdp["moved"].values()) <= 1.1 * (fsdp["parameters"] + fsdp["split"])


def test_bytes_are_read_from_the_program():
    program = """
      %a = (f32[2,3]{1,0}, bf16[4]{0}) all-reduce(%x, %y), channel_id=1
      %b = f32[8]{0} all-gather-start(f32[4]{0} %z), dimensions={0}
      ROOT %c = f32[] add(%all-reduce.1, %d)
    """
    assert collective_bytes(program) == {"all-reduce": 32, "all-gather": 32}
