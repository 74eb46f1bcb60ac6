"""TensorBoard's files, read back as the protocol buffers that they hold."""

from __future__ import annotations

import math
import struct

import pytest
from tests.made_up import made_up

pytest.importorskip("tensorboardX")


def events(file):
    """The events of a file of records: length, its checksum, content, its checksum."""
    from tensorboardX.proto.event_pb2 import Event

    data, at = file.read_bytes(), 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield Event.FromString(data[at + 12 : at + 12 + length])
        at += 16 + length


def test_every_trial_is_a_run_with_its_hyperparameters(tmp_path):
    from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData

    results = made_up(6, stopping=False)
    folders = sorted(results.to_tensorboard(tmp_path).iterdir())
    assert [f.name for f in folders] == [f"{t.trial:06d}" for t in results.trials]
    for trial, folder in zip(results.trials, folders):
        (file,) = folder.iterdir()
        values = [(e.step, v) for e in events(file) for v in e.summary.value]
        (start,) = [v for _, v in values if v.tag == "_hparams_/session_start_info"]
        told = HParamsPluginData.FromString(start.metadata.plugin_data.content)
        shown = {
            k: getattr(v, v.WhichOneof("kind")) for k, v in told.session_start_info.hparams.items()
        }
        assert shown == {**trial.config, "status": trial.status}
        curve = [v.simple_value for _, v in values if v.tag == "valid/accuracy"]
        ours = [x for x in results.curves()[trial.trial] if math.isfinite(x)]
        assert curve == pytest.approx(ours, rel=1e-6)
        (final,) = [(s, v.simple_value) for s, v in values if v.tag == "valid_accuracy"]
        assert final == (trial.steps, pytest.approx(trial.metrics["valid_accuracy"], rel=1e-6))


def test_the_best_alone(tmp_path):
    results = made_up(20)
    made_up(20).to_tensorboard(tmp_path, most=2)
    best = sorted(results.trials, key=lambda t: -t.metrics["valid_accuracy"])[:2]
    assert sorted(f.name for f in tmp_path.iterdir()) == sorted(f"{t.trial:06d}" for t in best)
    with pytest.raises(ValueError, match="`most` must be at least 1, got most=0"):
        results.to_tensorboard(tmp_path, most=0)
