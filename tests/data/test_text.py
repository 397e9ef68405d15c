"""The laws of documents: the same text in every packing, in one order, again and again."""

import gzip
import io
import lzma
import tarfile

import pytest

from zoo.data.examples.documents import documents
from zoo.errors import UserError

TEXTS = {"a.txt": "One.\n\n  Two\tthree.\r\n", "b/c.txt": "Vier fünf\n", "b/d.txt": "six"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The texts as files, compressed or not, and in archives beside them."""
    root = tmp_path_factory.mktemp("text")
    for kind, pack in (("plain", lambda data: data), (".gz", gzip.compress), (".xz", lzma.compress)):
        for name, text in TEXTS.items():
            path = root / kind.strip(".") / f"{name}{kind if kind.startswith('.') else ''}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(pack(text.encode()))
    for mode in ("", "gz", "xz"):
        with tarfile.open(root / f"all.tar{mode and '.' + mode}", f"w:{mode}") as archive:
            for name, text in TEXTS.items():
                member = tarfile.TarInfo(name)
                member.size = len(text.encode())
                archive.addfile(member, io.BytesIO(text.encode()))
    return root


@pytest.mark.parametrize("place", ["plain", "gz", "xz", "all.tar", "all.tar.gz", "all.tar.xz"])
def test_a_document_is_the_same_in_every_packing_and_can_be_read_again(folder, place):
    found = documents(str(folder / place), "train")
    assert list(found) == list(found) == list(TEXTS.values())


@pytest.mark.parametrize("place", ["plain/b", "all.tar.xz/b", "plain/b/*.txt", "gz/b/*"])
def test_a_folder_or_a_pattern_is_its_own_texts_alone(folder, place):
    assert list(documents(str(folder / place), "train")) == ["Vier fünf\n", "six"]


def test_a_file_is_a_document(folder):
    assert list(documents(str(folder / "all.tar/b/d.txt"), "train")) == ["six"]
    assert list(documents(str(folder / "xz/b/d.txt.xz"), "train")) == ["six"]


@pytest.mark.parametrize("cut", [0, 33, 90])
def test_shares_make_up_the_whole(folder, cut):
    first, second = (
        list(documents(f"{folder / 'plain'}{share}", "train")) for share in (f"[:{cut or 1}%]", f"[{cut or 1}%:]")
    )
    assert [one + other for one, other in zip(first, second, strict=True)] == list(TEXTS.values())


def test_the_manual_of_python_is_split_by_topic():
    splits = {split: set(documents("pydoc", split)) for split in ("train", "valid", "test")}
    assert all(len(splits["train"]) > 4 * len(splits[other]) > 0 for other in ("valid", "test"))
    assert not splits["train"] & splits["valid"] and not (splits["train"] | splits["valid"]) & splits["test"]
    assert list(documents("pydoc", "test")) == list(documents("pydoc", "test"))


@pytest.mark.parametrize(
    ("place", "told"),
    [
        ("no.txt", "no text at .*no.txt"),
        ("plain/b/*.md", r"no text at .*\.md"),
        ("all.tar/z", "all.tar/z holds no text"),
        ("plain[50%:50%]", "a share runs"),
        ("broken.gz", "broken.gz is truncated or damaged"),
        ("broken.xz", "broken.xz is truncated or damaged"),
        ("broken.tar.xz", "broken.tar.xz is truncated or damaged"),
    ],
)
def test_what_cannot_be_read_is_one_line(folder, place, told):
    for kind, source in ((".gz", "gz/b/d.txt.gz"), (".xz", "xz/b/d.txt.xz"), (".tar.xz", "all.tar.xz")):
        (folder / f"broken{kind}").write_bytes((folder / source).read_bytes()[: (folder / source).stat().st_size // 2])
    with pytest.raises(UserError, match=told) as error:
        list(documents(str(folder / place), "train"))
    assert "\n" not in str(error.value)
