"""The second pass, by itself and in a real daemon."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest.mock import Mock

import pytest
from converter_app.tests.harness import MARK, StartDaemon, decided, variant_of, wait_until
from converter_app.tests.stores import concluded, make_store
from tests.kit import pictures

from webp_converter.base.processes import start_fork_server
from webp_converter.config import Config, Encoding
from webp_converter.config import Store as StoreConfig
from webp_converter.queue.outcome import Outcome
from webp_converter.variants.store import Finished, Mark, Result
from webp_converter.work import second_pass
from webp_converter.work.records import Records
from webp_converter.work.second_pass import SecondPass
from webp_converter.work.worker import Order, Report, converting, improving

LOSSY = Mark(1, 2, "q75")


class World:
    """A store with pictures, and what surrounds a SecondPass."""

    def __init__(self, directory: Path, **encoding: object) -> None:
        self.store = make_store(directory)
        self.config = Config(
            store=StoreConfig(root=Path(os.fsdecode(self.store.root)), temporary=directory / "tmp"),
            encoding=Encoding.model_validate({"second_pass_idle_s": 0.0, **encoding}),
        )
        self.busy = False
        self.outcomes: list[str] = []
        self.published = 0
        self.stopping = threading.Event()
        self.thread: threading.Thread | None = None
        self.condition = Mock(is_idle=lambda: not self.busy)
        trees = Mock(publish=self._publish)
        self.records = Records(Mock(), Mock(), Mock(), Mock())
        self.records.metrics.second.labels = self._counted
        self.second_pass = SecondPass(self.config, self.store.temporary, self.condition, trees, self.records)

    def _publish(self, batch: list[Finished]) -> Sequence[Result]:
        self.published += 1
        return self.store.publish(batch)

    def _counted(self, outcome: str) -> Mock:
        self.outcomes.append(outcome)
        return Mock()

    def run(self) -> None:
        self.thread = threading.Thread(target=self.second_pass.run, args=(self.stopping,), daemon=True)
        self.thread.start()

    def end(self) -> None:
        self.stopping.set()
        if self.thread:
            self.thread.join()
        self.second_pass.close()

    def picture(self, name: str = "photo.jpg", data: bytes | None = None) -> Path:
        path = Path(os.fsdecode(self.store.root)) / name
        path.write_bytes(pictures.jpeg() if data is None else data)
        order = Order(os.fsencode(path), 0)
        report = concluded(converting(self.config, self.store, order), self.config.encoding)
        assert report.finished
        assert self.store.publish([report.finished]) == [Result.PUBLISHED]
        return path

    def improve(self, path: Path) -> Report:
        order = Order(os.fsencode(path), 0, second=True)
        return concluded(improving(self.config, self.store, order), self.config.encoding)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    start_fork_server()
    world = World(tmp_path)
    yield world
    world.end()


def mark_of(path: Path) -> Mark:
    mark = Mark.parse(os.getxattr(variant_of(path), MARK))
    assert mark
    return mark


class TestImprove:
    def test_a_smaller_variant_that_reaches_the_target(self, world: World) -> None:
        path = world.picture()
        before, mark = variant_of(path).stat().st_size, mark_of(path)
        report = world.improve(path)
        assert report.finished
        assert world.store.publish([report.finished]) == [Result.PUBLISHED]
        after = variant_of(path)
        assert after.stat().st_size == report.variant_bytes < before
        assert pictures.ssim(path.read_bytes(), after.read_bytes()) >= 0.95
        assert mark_of(path).latency_ms == mark.latency_ms
        assert decided(path)

    def test_a_second_time_there_is_nothing_to_gain(self, world: World) -> None:
        path = world.picture()
        first = world.improve(path).finished
        assert first
        world.store.publish([first])
        assert world.improve(path).outcome is Outcome.AS_GOOD
        assert os.listdir(world.store.temporary) == []

    def test_nothing_that_has_no_variant_with_loss(self, world: World) -> None:
        drawing = pictures.encoded(pictures.photograph().quantize(2), "PNG")
        lossless = world.picture("drawing.png", drawing)
        assert mark_of(lossless).verdict == "q0"
        kept = world.picture("kept.jpg", b"<html>")
        undecided = kept.with_name("undecided.jpg")
        undecided.write_bytes(pictures.jpeg())
        stale = world.picture("stale.jpg")
        stale.write_bytes(pictures.jpeg("coffee.png"))
        for path in (lossless, kept, undecided, stale, kept.with_name("absent.jpg")):
            assert world.improve(path).outcome is Outcome.GONE

    def test_what_changed_meanwhile_is_not_published(self, world: World) -> None:
        path = world.picture()
        work = world.improve(path).finished
        assert work
        path.write_bytes(pictures.jpeg("coffee.png"))
        before = variant_of(path).read_bytes()
        assert world.store.publish([work]) == [Result.CHANGED]
        assert variant_of(path).read_bytes() == before


class TestSecondPass:
    def test_improves_all_it_remembers_and_ends_its_process(self, world: World) -> None:
        paths = [
            world.picture(f"{k}.jpg", pictures.jpeg(name)) for k, name in enumerate(pictures.PHOTOGRAPHS)
        ]
        sizes = {}
        for path in paths:
            if variant_of(path).exists():
                sizes[path] = variant_of(path).stat().st_size
                world.second_pass.remember(os.fsencode(path), mark_of(path))
        assert len(world.second_pass) == len(sizes)
        world.run()
        wait_until(lambda: len(world.outcomes) == len(sizes))
        assert set(world.outcomes) <= {"improved", "as-good"}
        smaller = [path for path, size in sizes.items() if variant_of(path).stat().st_size < size]
        assert len(smaller) == world.outcomes.count("improved") >= 1
        wait_until(lambda: world.second_pass._process is None)

    def test_waits_until_there_is_nothing_else_to_do(self, world: World) -> None:
        path = world.picture()
        world.busy = True
        asked = threading.Event()

        def idle() -> bool:
            asked.set()
            return not world.busy

        world.condition.is_idle = idle
        world.second_pass.remember(os.fsencode(path), LOSSY)
        world.run()
        for _ in range(3):
            asked.clear()
            assert asked.wait(10)
        assert len(world.second_pass) == 1
        assert not world.outcomes
        world.busy = False
        wait_until(lambda: world.outcomes == ["improved"])

    @pytest.mark.parametrize("seen", [True, False])
    def test_work_in_between_starts_the_wait_anew(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seen: bool
    ) -> None:
        """Ten seconds pass between two looks, at one of which it is at work, or a picture was published since
        the last; thirty of rest are wanted."""
        tested = World(tmp_path, second_pass_idle_s=30.0).second_pass
        clock = [0.0]
        stopping = threading.Event()

        def idle() -> bool:
            clock[0] += 10
            if clock[0] == 30 and not seen:
                tested.remember(b"/b.jpg", LOSSY)
            return clock[0] != 30 or not seen

        def improve(path: bytes, stopping: threading.Event) -> None:
            started_at.append(clock[0])
            stopping.set()

        started_at: list[float] = []
        monkeypatch.setattr(second_pass, "_TICK_S", 0.001)
        monkeypatch.setattr(second_pass.time, "monotonic", lambda: clock[0])
        monkeypatch.setattr(tested, "_condition", Mock(is_idle=idle))
        monkeypatch.setattr(tested, "_improve", improve)
        tested.remember(b"/a.jpg", LOSSY)
        tested.run(stopping)
        # At work at 30, so at rest from then on; one more look before each picture.
        assert started_at == [70]

    def test_a_process_that_dies_costs_one_picture(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        paths = [world.picture(f"{k}.jpg") for k in range(2)]
        start = BaseProcess.start
        killed = []

        def start_and_kill_the_first(process: BaseProcess) -> None:
            start(process)
            if not killed:
                killed.append(process)
                process.kill()
                process.join()

        monkeypatch.setattr(BaseProcess, "start", start_and_kill_the_first)
        for path in paths:
            world.second_pass.remember(os.fsencode(path), LOSSY)
        world.run()
        wait_until(lambda: sorted(world.outcomes) == ["failed", "improved"])

    @pytest.mark.parametrize(
        ("encoding", "verdict", "remembered"),
        [
            ({}, "q75", 1),
            ({}, "q0", 0),
            ({}, "no-saving", 0),
            ({"second_pass_method": 0}, "q75", 0),
            ({"method": 6}, "q75", 0),
        ],
    )
    def test_remembers_only_what_can_become_smaller(
        self, tmp_path: Path, encoding: dict[str, int], verdict: str, remembered: int
    ) -> None:
        tested = World(tmp_path, **encoding).second_pass
        tested.remember(b"/a.jpg", LOSSY._replace(verdict=verdict))
        assert len(tested) == remembered

    def test_forgets_the_oldest(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(second_pass, "REMEMBERED", 2)
        tested = World(tmp_path).second_pass
        for name in (b"/a", b"/b", b"/a", b"/c", b"/c"):
            tested.remember(name, LOSSY)
        assert [tested._next(), tested._next()] == [b"/c", b"/a"]
        assert len(tested) == 0


def test_in_a_daemon(start_daemon: StartDaemon) -> None:
    daemon = start_daemon(encoding={"second_pass_idle_s": 0.5, "avif": True})
    directory = daemon.root / "iblock" / "1a2" / "450_450_1"
    directory.mkdir(parents=True)
    path = directory / "photo.jpg"
    path.write_bytes(pictures.jpeg())
    wait_until(lambda: decided(path))
    first = daemon.log
    wait_until(lambda: first("improved"))
    published, improved = first("published")[0], first("improved")[0]
    assert improved["path"] == str(path)
    assert improved["variant_bytes"] == variant_of(path).stat().st_size < published["variant_bytes"]
    assert pictures.ssim(path.read_bytes(), variant_of(path).read_bytes()) >= 0.95
    assert decided(path)
    avif = path.with_name("photo.jpg.avif")
    assert avif.stat().st_size == published["avif_bytes"] < improved["variant_bytes"]
    assert daemon.stop() == 0
    assert not list(daemon.temporary.iterdir())
