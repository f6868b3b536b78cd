import gc
import mmap
import multiprocessing
import tempfile
from io import FileIO
from pathlib import Path

import numpy as np
import pytest

from kernels.crf.exchange import Exchange


def numbers(count, start=0):
    return np.arange(start, start + count, dtype=np.float32).reshape(-1, 2)


def test_arrays_lie_side_by_side_and_are_what_was_put():
    exchange = Exchange()
    arrays = [numbers(count, start) for count, start in ((6, 0), (2, 100), (5000, 7))]
    places = [exchange.put(array) for array in arrays]
    for place, array in zip(places, arrays, strict=True):
        assert np.array_equal(exchange.at(place), array)


def test_a_dropped_place_is_taken_again_by_what_fits():
    exchange = Exchange()
    places = [exchange.put(numbers(2000)) for _ in range(3)]
    exchange.drop(places[1])
    assert exchange.put(numbers(9000)).begin > places[2].begin
    assert exchange.put(numbers(1000)).begin == places[1].begin
    exchange.drop(places[1])
    assert exchange.put(numbers(2000)).begin > places[2].begin


def test_an_array_that_is_not_contiguous_keeps_its_order():
    exchange = Exchange()
    assert np.array_equal(exchange.at(exchange.put(numbers(6).T)), numbers(6).T)


def double(exchange, places, answers):
    place = places.recv()
    exchange.at(place)[:] *= 2
    answers.send("done")


def test_a_process_that_was_started_with_it_sees_what_is_put_later():
    exchange, context = Exchange(), multiprocessing.get_context("spawn")
    (places, send), (receive, answers) = context.Pipe(duplex=False), context.Pipe(duplex=False)
    process = context.Process(target=double, args=(exchange, places, answers))
    process.start()
    place = exchange.put(numbers(8))
    send.send(place)
    assert receive.poll(60)
    assert np.array_equal(exchange.at(place), 2 * numbers(8))
    process.join()


def test_the_file_has_no_name(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    Exchange().put(numbers(8))
    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk_is_an_error():
    with FileIO("/dev/full", "r+b") as full, pytest.raises(OSError, match="No space left"):
        Exchange(full).put(numbers(8))


@pytest.mark.filterwarnings("error")
def test_the_file_is_closed_with_what_it_belongs_to():
    exchange = Exchange()
    file = exchange.file
    del exchange
    gc.collect()
    assert file.closed


def test_a_place_is_taken_again_by_what_fills_it():
    exchange = Exchange()
    page = numbers(mmap.ALLOCATIONGRANULARITY // 4)
    places = [exchange.put(page) for _ in range(2)]
    exchange.drop(places[0])
    assert exchange.put(page).begin == places[0].begin


def test_a_file_that_takes_a_few_bytes_at_a_time_gets_all_of_them(tmp_path):
    class Slow(FileIO):
        def write(self, data):
            return super().write(data[:5])

    exchange = Exchange(Slow(tmp_path / "slow", "w+b"))
    assert np.array_equal(exchange.at(exchange.put(numbers(8))), numbers(8))
