"""What a stage costs is counted once, children included, and is never silently nothing."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from puna import meter as room
from puna.config import from_dict
from puna.errors import InputError, MissingPackageError
from puna.meter import Meter, MeterConfig

BURN = "import time\nwhile time.process_time() < {}: pass"
PLAIN = MeterConfig(use_codecarbon=False)


def burn(seconds: float) -> None:
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass


def test_time_of_this_process_and_of_ended_children_is_counted() -> None:
    meter = Meter(PLAIN)
    with meter.stage("train") as cost:
        cost.tokens += 100
        burn(0.1)
        subprocess.run([sys.executable, "-c", BURN.format(0.3)], check=True)
    assert 0.39 < cost.cpu_seconds < 5 and cost.wall_seconds >= 0.39
    assert meter.to_dict()["stages"]["train"]["tokens"] == 100
    assert cost.peak_bytes > 1e6


@pytest.mark.skipif(sys.platform != "linux", reason="living children are seen on Linux only")
def test_time_of_living_children_is_counted_once() -> None:
    meter = Meter(PLAIN)
    script = BURN.format(0.3) + "\nprint(flush=True)\ninput()"
    command = [sys.executable, "-c", script]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdin and child.stdout
        with meter.stage("alive") as alive:
            child.stdout.readline()
        with meter.stage("ending") as ending:
            child.communicate("\n")
    assert alive.cpu_seconds > 0.2
    assert ending.cpu_seconds < 0.2


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
def test_memory_is_that_of_the_process_and_not_of_its_parent() -> None:
    child = "from puna.meter import _peak_bytes; print(_peak_bytes())"
    parent = (
        "import subprocess, sys; held = b'1' * 400_000_000; "
        "subprocess.run([sys.executable, '-c', sys.argv[1]], check=True)"
    )
    command = [sys.executable, "-c", parent, child]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 1e6 < int(done.stdout) < 300e6


def test_the_estimate_says_what_it_rests_on() -> None:
    meter = Meter(MeterConfig(use_codecarbon=False, idle_watts=10, carbon_grams_per_kwh=360))
    with meter.stage("train"):
        burn(0.1)
    cost = meter.stages["train"]
    joules = 12 * cost.cpu_seconds + 10 * cost.wall_seconds
    assert cost.energy_joules == pytest.approx(joules)
    data = meter.to_dict()["stages"]["train"]
    assert data["co2e_grams"] == pytest.approx(joules / 3.6e6 * 360)
    assert data["energy_kwh"] == pytest.approx(joules / 3.6e6)
    assert data["source"].startswith("estimate: 0.1 CPU-seconds x 12 W + 0.")
    assert data["source"].endswith("s x 10 W at rest, no accelerator counted")
    assert data["source"] in meter.sentence() and "g CO2e at 360 g/kWh" in meter.sentence()


def test_power_given_for_the_machine_is_shared_among_its_cores() -> None:
    cores = os.cpu_count() or 1
    config = MeterConfig(power_watts=10 + 20 * cores, idle_watts=10)
    meter = Meter(config)  # the figure given is used, codecarbon or not
    with meter.stage("train") as cost:
        burn(0.05)
    joules = 20 * cost.cpu_seconds + 10 * cost.wall_seconds
    assert cost.energy_joules == pytest.approx(joules)


def test_stages_within_stages_add_up_and_names_go_on() -> None:
    meter = Meter(PLAIN)
    began = time.perf_counter()
    with meter.stage("train") as train:
        time.sleep(0.02)
        for _ in range(2):
            with meter.stage("evaluate") as evaluate:
                time.sleep(0.03)
    passed = time.perf_counter() - began
    assert evaluate.wall_seconds >= 0.06 and train.wall_seconds >= 0.02
    total = meter.total()
    assert total.wall_seconds == pytest.approx(train.wall_seconds + evaluate.wall_seconds)
    assert total.wall_seconds <= passed
    time.sleep(0.05)  # between stages nothing is counted
    with meter.stage("save"):
        pass
    assert meter.stages["save"].wall_seconds < 0.04
    assert [*meter.to_dict()["stages"]] == ["train", "evaluate", "save"]


def test_a_stage_that_fails_is_counted_and_none_is_free() -> None:
    meter = Meter(PLAIN)
    with pytest.raises(ZeroDivisionError), meter.stage("train"):
        raise ZeroDivisionError
    with meter.stage("after"):
        pass
    assert meter.stages["train"].energy_joules > 0 and meter.stages["after"].energy_joules > 0
    assert meter.total().energy_joules > meter.stages["train"].energy_joules


def test_codecarbon_meters_without_network_and_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("codecarbon")

    def refuse(*_: object) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("CODECARBON_EMISSIONS_ENDPOINT", "http://localhost:9")
    monkeypatch.setenv("CODECARBON_CO2_SIGNAL_API_TOKEN", "secret")
    monkeypatch.setenv("CODECARBON_OUTPUT_DIR", str(tmp_path / "absent"))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    with Meter(MeterConfig(country="fra")) as meter, meter.stage("train") as cost:
        burn(0.3)
    assert cost.metered_joules > 0 and not meter.notes
    assert meter.source(cost).startswith("codecarbon 3.")
    assert 10 < meter.carbon_grams_per_kwh < 150  # France, by its own mix
    expected = cost.energy_joules / 3.6e6 * meter.carbon_grams_per_kwh
    assert meter.to_dict()["total"]["co2e_grams"] == pytest.approx(expected)
    assert 0.1 < cost.metered_joules / cost.wall_seconds < 5000  # watts of a machine
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    assert logging.getLogger("codecarbon").level == logging.CRITICAL


def test_a_meter_that_fails_is_told_of_and_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        name = "codecarbon 0"
        readings = 2

        def joules(self) -> float:
            self.readings -= 1
            if self.readings < 0:
                raise RuntimeError("sensor gone")
            return 100.0 - self.readings

        def stop(self) -> None: ...

    monkeypatch.setattr(room.importlib.util, "find_spec", lambda name: name)
    monkeypatch.setattr(room, "_CodeCarbon", Broken)
    meter = Meter()
    for _ in range(2):
        with meter.stage("train") as cost:
            burn(0.01)
    assert cost.metered_joules == 1.0 and cost.estimated_joules > 0
    assert meter.source(cost).startswith("codecarbon 0 offline; estimate: 0.0 CPU-seconds")
    assert meter.notes == ["codecarbon failed, energy is estimated: RuntimeError: sensor gone"]
    meter.close()


def test_settings_that_make_no_sense_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="carbon_grams_per_kwh must be greater than 0, not 0"):
        MeterConfig(carbon_grams_per_kwh=0)
    with pytest.raises(InputError, match=r"more than it draws at rest \(50\)[\s\S]*idle_watts"):
        MeterConfig(power_watts=40, idle_watts=50)
    pytest.importorskip("codecarbon")
    with pytest.raises(InputError, match=r"country 'XXX' is not known[\s\S]*FRA"):
        Meter(MeterConfig(country="XXX"))
    monkeypatch.setitem(sys.modules, "codecarbon.input", None)
    with pytest.raises(MissingPackageError, match=r"pip install 'puna\[meter\]'"):
        Meter(MeterConfig(country="FRA"))


def test_a_recipe_can_say_it() -> None:
    config = from_dict(MeterConfig, {"power_watts": 65, "idle_watts": 5, "country": None})
    assert config == MeterConfig(power_watts=65.0, idle_watts=5.0)


def test_the_meter_imports_no_torch() -> None:
    code = "import sys, puna.meter; print({'torch', 'numpy', 'codecarbon'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
