"""The decoder in C beside that in Python: the same bytes, the same refusals, nothing out of bounds."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.formats.samples import large, sample, spoilt
from tests.formats.test_ypz import HAND_MADE, HOSTILE
from yoloprune import formats
from yoloprune.errors import InputError
from yoloprune.formats import ypz

SOURCE = Path(formats.__file__).with_name("ypz.c")
MANY = """\
#define YPZ_NO_MAIN
#include "ypz.c"
/* Files on stdin, each behind its size; for each its outputs likewise behind a 1, or behind a 0 byte and reason. */
static void put_number(uint32_t value) { fwrite(&value, 4, 1, stdout); }
static void put_file(const uint8_t *data, size_t size)
{
    put_number((uint32_t)size);
    if (size)
        fwrite(data, 1, size, stdout);
}
int main(void)
{
    static struct ypz it;
    uint32_t size;
    while (fread(&size, 4, 1, stdin) == 1) {
        uint8_t *data = malloc(size ? size : 1); /* no byte more, so that reading behind it is seen */
        if (data == NULL || fread(data, 1, size, stdin) != size)
            return 3;
        int refused = ypz_unpack(&it, data, size);
        put_number(!refused);
        if (refused) {
            put_number((uint32_t)it.byte);
            put_file((const uint8_t *)it.reason, strlen(it.reason));
        } else {
            put_file(it.cfg, it.cfg_size);
            put_file(it.names, it.names_size);
            put_file(it.weights, it.weights_size);
        }
        free(it.cfg);
        free(it.names);
        free(it.weights);
        free(data);
    }
    return 0;
}
"""
FLAGS = ["-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror"]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
LIMITED = {**os.environ, "ASAN_OPTIONS": "hard_rss_limit_mb=1000:detect_leaks=1"}

LATER = {"fewer floats", "behind the arrays"}
"""What is wrong with the table of arrays, the decoder in C sees when it gets there."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With `ypz`, the program, and `many`, which reads many files and stops at what is undefined in C."""
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("no gcc to build ypz.c")
    made = tmp_path_factory.mktemp("c")
    (made / "many.c").write_text(MANY)
    trial = ["-x", "c", "-", "-o", str(made / "trial"), *SANITIZERS]
    done = subprocess.run([compiler, *trial], input=b"int main(void) { return 0; }", capture_output=True, check=False)
    if done.returncode:
        pytest.skip("gcc has no AddressSanitizer")
    for name, source, more in (("ypz", SOURCE, []), ("many", made / "many.c", SANITIZERS)):
        words = [compiler, *FLAGS, *more, f"-I{SOURCE.parent}", "-o", str(made / name), str(source)]
        subprocess.run(words, check=True)
    return made


def decoded(folder: Path, files: Sequence[bytes]) -> Iterator[tuple[bytes, bytes, bytes] | tuple[int, str]]:
    """cfg, names and weights of each file, or where and why it is refused."""
    given = b"".join(struct.pack("<I", len(data)) + data for data in files)
    done = subprocess.run([folder / "many"], input=given, capture_output=True, env=LIMITED, check=False)
    assert done.returncode == 0, done.stderr.decode()
    at = 0

    def number() -> int:
        nonlocal at
        at += 4
        return int(struct.unpack_from("<I", done.stdout, at - 4)[0])

    def content() -> bytes:
        nonlocal at
        size = number()
        at += size
        return done.stdout[at - size : at]

    for _ in files:
        yield (content(), content(), content()) if number() else (number(), content().decode())
    assert at == len(done.stdout)


def twin(data: bytes) -> tuple[bytes, bytes, bytes] | int:
    """The same by Python; of a refusal only the byte."""
    try:
        found = ypz.parse(data)
        return found.cfg, found.names or b"", b"".join(found.weights())
    except InputError as error:
        (where,) = re.findall(r"^<ypz>: byte (\d+): ", str(error))
        return int(where)


def test_samples(folder: Path) -> None:
    made = [sample(seed) for seed in range(6)] + [large(1)]
    files = [ypz.dump(files) for files, _ in made]
    for found, (given, weights) in zip(decoded(folder, files), made, strict=True):
        assert found == (given.cfg, given.names or b"", weights)


def test_hostile_files(folder: Path) -> None:
    files = [data for data, _ in HOSTILE.values()]
    for name, data, found in zip(HOSTILE, files, decoded(folder, files), strict=True):
        assert len(found) == 2, name
        if name not in LATER:
            assert found[0] == twin(data), (name, found)


def test_spoilt_files(folder: Path) -> None:
    """Hundreds, whose hash is right: refused by both, or the same bytes."""
    rng = random.Random(11)
    goods = [ypz.dump(sample(seed)[0]) for seed in range(3)] + [HAND_MADE]
    files = [spoilt(rng, rng.choice((*goods, HAND_MADE))) for _ in range(600)]
    read = 0
    for number, (data, found) in enumerate(zip(files, decoded(folder, files), strict=True)):
        other = twin(data)
        if isinstance(other, int):
            assert len(found) == 2, number
        else:
            assert found == other, number
            read += 1
    assert 20 < read < 580


def test_the_program(folder: Path, tmp_path: Path) -> None:
    file, stem = tmp_path / "net.ypz", tmp_path / "out"
    file.write_bytes(HAND_MADE)
    subprocess.run([folder / "ypz", file, stem], check=True)
    assert stem.with_suffix(".cfg").read_bytes() == b"[net]\n"
    assert stem.with_suffix(".weights").read_bytes() == b"".join(ypz.parse(HAND_MADE).weights())
    assert not stem.with_suffix(".names").exists()
    file.write_bytes(HAND_MADE[:-1])
    for words in ([file, stem], [tmp_path / "none.ypz", stem], [tmp_path, stem], [file]):
        done = subprocess.run([folder / "ypz", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1
    assert (
        "byte 12: " in subprocess.run([folder / "ypz", file, stem], capture_output=True, text=True, check=False).stderr
    )
