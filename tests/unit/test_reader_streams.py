import bz2
import gzip
import io
import lzma
import zipfile

import pyarrow as pa
import pytest

from feature_repo.errors import InputError
from feature_repo.ticks import streams
from feature_repo.ticks.streams import open_stream

CONTENT = b"".join(b"%d,%d\n" % (row, row * row % 9973) for row in range(150_000))  # beyond one chunk of every decoder


def zipped(members, method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


PACK = {
    "csv": lambda data: data,
    "csv.gz": lambda data: gzip.compress(data, 6, mtime=0),
    "csv.bz2": lambda data: bz2.compress(data, 1),
    "csv.xz": lambda data: lzma.compress(data, preset=0),
    "csv.zst": lambda data: pa.Codec("zstd").compress(data).to_pybytes(),
    "zip": lambda data: zipped({"day.csv": data}),
}
COMPRESSED = [name for name in PACK if name != "csv"]


def written(folder, name, data):
    path = folder / f"day.{name}"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", PACK)
@pytest.mark.parametrize("content", [CONTENT, b"", b"x"], ids=["long", "empty", "short"])
def test_stream_when_a_file_is_packed_in_any_way_then_its_content_comes_back(tmp_path, name, content):
    with open_stream(written(tmp_path, name, PACK[name](content))) as stream:
        assert stream.read() == content


@pytest.mark.parametrize("name", [name for name in COMPRESSED if name != "zip"])
def test_stream_when_members_follow_one_another_then_they_are_one_content(tmp_path, name):
    with open_stream(written(tmp_path, name, PACK[name](CONTENT) + PACK[name](b"tail\n"))) as stream:
        assert stream.read() == CONTENT + b"tail\n"


@pytest.mark.parametrize("name", ["csv.gz", "csv.bz2", "csv.xz"])
def test_stream_when_zero_bytes_pad_the_file_then_they_are_no_content(tmp_path, name):
    with open_stream(written(tmp_path, name, PACK[name](CONTENT) + bytes(3 << 20))) as stream:
        assert stream.read() == CONTENT


@pytest.mark.parametrize("name", COMPRESSED)
def test_stream_when_it_is_read_in_small_pieces_then_nothing_is_lost(tmp_path, name):
    with open_stream(written(tmp_path, name, PACK[name](CONTENT))) as stream:
        assert b"".join(iter(lambda: stream.read(77_777), b"")) == CONTENT


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("part", [0.01, 0.5, 0.999])
def test_stream_when_a_compressed_file_is_cut_off_then_the_error_names_it(tmp_path, name, part):
    packed = PACK[name](CONTENT)
    path = written(tmp_path, name, packed[: int(part * len(packed))])
    with pytest.raises(InputError, match=f"{path}.*fetch the file again"), open_stream(path) as stream:
        stream.read()


@pytest.mark.parametrize("name", [name for name in COMPRESSED if name != "csv.zst"])  # Arrow writes it without checksum
def test_stream_when_a_byte_in_the_middle_is_wrong_then_the_error_says_where(tmp_path, name):
    packed = bytearray(PACK[name](CONTENT))
    packed[len(packed) // 2] ^= 0x10
    path = written(tmp_path, name, bytes(packed))
    with pytest.raises(InputError, match=rf"{path}: damaged after byte [\d,]+ of its content"):
        open_and_read(path)


def open_and_read(path):
    with open_stream(path) as stream:
        return stream.read()


@pytest.mark.parametrize("name", [name for name in COMPRESSED if name != "zip"])
def test_stream_when_bytes_of_no_member_follow_then_they_are_damage(tmp_path, name):
    path = written(tmp_path, name, PACK[name](CONTENT) + b"not a member")
    with pytest.raises(InputError, match=f"{path}: damaged"):
        open_and_read(path)


@pytest.mark.parametrize("name", COMPRESSED)
@pytest.mark.parametrize("data", [b"", b"1,2\n"])
def test_stream_when_a_file_is_not_what_its_suffix_says_then_it_is_refused(tmp_path, name, data):
    path = written(tmp_path, name, data)
    with pytest.raises(InputError, match=f"{path}: .*so it is no {path.suffix} file"):
        open_stream(path)


@pytest.mark.parametrize("name", COMPRESSED)
def test_stream_when_content_grows_beyond_the_limit_then_reading_stops_there(tmp_path, name, monkeypatch):
    monkeypatch.setattr(streams, "BOMB_FREE_BYTES", 1 << 20)
    path = written(tmp_path, name, PACK[name](bytes(16 << 20)))
    read = 0
    with pytest.raises(InputError, match=f"{path}: .*grow beyond"), open_stream(path) as stream:
        while data := stream.read(1 << 20):
            read += len(data)
    assert read <= max(1 << 20, streams.BOMB_RATIO * path.stat().st_size) + (1 << 20)


@pytest.mark.parametrize(
    ("members", "said"), [({}, "holds 0 files"), ({"a.csv": b"1", "b.csv": b"2"}, "holds 2 files")]
)
def test_stream_when_a_zip_holds_not_one_file_then_it_is_refused(tmp_path, members, said):
    path = written(tmp_path, "zip", zipped(members))
    with pytest.raises(InputError, match=f"{path}: {said}, exactly one is wanted"):
        open_stream(path)


def test_stream_when_zeros_hide_checksum_and_size_of_a_zip_then_the_content_is_missed(tmp_path):
    packed = bytearray(PACK["zip"](CONTENT))
    entry = packed.rfind(b"PK\x01\x02")
    packed[entry + 16 : entry + 24] = bytes(8)  # CRC-32 and compressed size in the central directory
    path = written(tmp_path, "zip", bytes(packed))
    with pytest.raises(InputError, match=f"{path}: damaged after byte 0 .*{len(CONTENT):,} bytes of the content"):
        open_and_read(path)


def test_stream_when_a_zip_names_its_file_by_nothing_then_it_is_refused(tmp_path):
    packed = bytearray(PACK["zip"](CONTENT))
    packed[packed.rfind(b"day.csv")] = 0
    path = written(tmp_path, "zip", bytes(packed))
    with pytest.raises(InputError, match=f"{path}: not readable"):
        open_stream(path)


def test_stream_when_a_zip_holds_a_folder_and_one_file_then_the_file_is_read(tmp_path):
    assert open_and_read(written(tmp_path, "zip", zipped({"days/": b"", "days/day.csv": b"1,2\n"}))) == b"1,2\n"


def test_stream_when_a_zip_is_packed_with_a_memory_hungry_method_then_it_is_refused(tmp_path):
    path = written(tmp_path, "zip", zipped({"day.csv": CONTENT}, zipfile.ZIP_LZMA))
    with pytest.raises(InputError, match=f"{path}: compressed by zip method 14"):
        open_stream(path)


def test_stream_when_an_xz_asks_for_more_memory_than_the_limit_then_it_is_refused(tmp_path, monkeypatch):
    path = written(tmp_path, "csv.xz", PACK["csv.xz"](CONTENT))
    monkeypatch.setattr(streams, "XZ_MEMORY_BYTES", 1 << 16)
    with pytest.raises(InputError, match=f"{path}: damaged after byte 0.*[Mm]emory"):
        open_and_read(path)


@pytest.mark.parametrize("name", ["csv", "zip"])
def test_stream_when_there_is_no_file_then_the_error_names_it(tmp_path, name):
    with pytest.raises(InputError, match=rf"{tmp_path}/day.{name}: not readable \(No such file"):
        open_stream(tmp_path / f"day.{name}")
