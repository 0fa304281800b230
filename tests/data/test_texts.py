"""Texts: windows of T tokens, none padded; how a text is parted, and what is wrong with one in one line."""

import json

import numpy as np
import pytest
import torch

import batchscale
from batchscale.cli import main
from batchscale.data.augmentation import Augmentation
from batchscale.data.language.text_sources import SHAKESPEARE, TEXT, TOPICS
from batchscale.data.language.tokens import alphabet, of_bytes, of_characters
from batchscale.data.language.windows import TextWindows
from batchscale.data.source import Reading
from batchscale.errors import DataError, RecipeError

FOUR = Reading(sequence=4)
BYTES = Reading(sequence=4, tokens="bytes")


def numbers(count, sequence=4):
    return TextWindows(torch.arange(count, dtype=torch.uint8), sequence, "all")


@pytest.mark.parametrize(("count", "windows", "left_out"), [(5, 1, 0), (8, 1, 3), (9, 2, 0), (21, 5, 0), (24, 5, 3)])
def test_windows_hold_every_token_once_and_none_is_padded(count, windows, left_out):
    examples = numbers(count)
    inputs, targets = examples.part(slice(None))
    assert (len(examples), examples.left_out, examples.shape) == (windows, left_out, (4,))
    assert inputs.flatten().tolist() == list(range(4 * windows))
    assert targets.flatten().tolist() == list(range(1, 4 * windows + 1))
    assert inputs.dtype == targets.dtype == torch.int64


def test_a_minibatch_and_a_selection_are_windows_by_number():
    examples = numbers(41)
    picked, following = examples.augmented(0, Augmentation())(np.zeros(3, np.int64), np.array([7, 0, 7]))
    assert picked[:, 0].tolist() == [28, 0, 28]
    assert torch.equal(following, picked + 1)
    half = examples.select(np.array([9, 3, 5]))
    assert half.part(slice(1, 3))[0][:, 0].tolist() == [12, 20]
    assert half.select(np.array([2])).augmented(0, Augmentation())(np.zeros(1, np.int64), np.array([0]))[0][0, 0] == 20
    digests = [part.digests()["tokens"] for part in (examples, half, examples.select(np.arange(10)))]
    assert len(set(digests[:2])) == 2
    assert digests[0] != numbers(41, 5).digests()["tokens"]
    assert digests[0] == numbers(42).digests()["tokens"]  # what is left out is no part of what is trained on


def test_a_text_is_kept_once_in_a_byte_a_token():
    tokens = torch.zeros(1 << 20, dtype=torch.uint8)
    examples = TextWindows(tokens, 64, "two")
    assert examples._windows.data_ptr() == examples.select(np.arange(9))._windows.data_ptr() == tokens.data_ptr()


@pytest.mark.parametrize("extra", ["", "äöü€𝄞", "".join(map(chr, range(0x400, 0x600)))])
def test_characters_are_numbers_of_a_sorted_alphabet(extra):
    text = "hello world" + extra
    characters = alphabet(text, "text")
    tokens = of_characters(text, characters, "text")
    assert "".join(characters[number] for number in tokens.tolist()) == text
    assert list(characters) == sorted(set(text))
    assert tokens.dtype == (torch.uint8 if len(characters) < 256 else torch.int32)
    assert of_bytes("ä".encode()).tolist() == [0xC3, 0xA4]


def write(folder, **texts):
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        (folder / f"{name}.txt").write_bytes(text if isinstance(text, bytes) else text.encode())


def told(examples, vocabulary):
    return "".join(vocabulary[number] for number in examples.part(slice(None))[0].flatten().tolist())


def test_one_file_is_parted_at_its_end_by_characters(tmp_path):
    text = "".join(chr(0xE0 + number % 20) for number in range(100))  # two bytes each
    write(tmp_path, book=b"\xef\xbb\xbf" + text.encode())
    for share, cut in ((0.1, 90), (0.25, 75)):
        splits = TEXT.open(tmp_path, Reading(sequence=4, test_share=share))
        vocabulary = splits.contents["training vocabulary"]
        assert splits.num_classes == len(vocabulary) == 20
        assert text.startswith(told(splits.train, vocabulary))
        assert told(splits.test, vocabulary) == text[cut : cut + 4 * len(splits.test)]
        assert (len(splits.train), len(splits.test)) == ((cut - 1) // 4, (99 - cut) // 4)
    assert "the last 25 % of book.txt is the test part" in splits.note
    assert TEXT.open(tmp_path, BYTES).num_classes == 256


@pytest.mark.parametrize("name", ["val", "test"])
def test_two_files_are_the_two_parts(tmp_path, name):
    write(tmp_path / "text", train="abcabcabc", **{name: "cbacba"})
    splits = TEXT.open(tmp_path, FOUR)
    assert (told(splits.train, "abc"), told(splits.test, "abc")) == ("abcabcab", "cbac")
    with pytest.raises(DataError, match=rf"data.test_share=0.2: .* has {name}.txt as its test part; leave it out"):
        TEXT.open(tmp_path, Reading(sequence=4, test_share=0.2))


@pytest.mark.parametrize(
    ("texts", "reading", "message"),
    [
        ({"a": ""}, FOUR, r"a.txt: is empty: must be a text"),
        ({"a": b"abc\xffdef" * 9}, FOUR, r"a.txt: is not UTF-8 at byte 3 \(0xff\).*use data.tokens=bytes"),
        ({"a": b"\xef\xbb\xbfab\xff" * 9}, FOUR, r"a.txt: is not UTF-8 at byte 5 \(0xff\)"),
        ({"a": "x" * 99}, FOUR, r"has one character alone, 'x': must have two or more"),
        ({"a": "abcd" * 9}, FOUR, r"data.sequence=4: .*a.txt, its last 0.1 has 4 characters: must have 5 or more"),
        ({"a": "abcd" * 9}, Reading(sequence=4, tokens="bytes", test_share=0.01), r"its last 0.01, is empty"),
        (
            {"train": "abc" * 9, "val": "abéabñ" * 9},
            FOUR,
            r"val.txt: has 2 characters that the training text has not \('\\xe9', '\\xf1'; the first at character 2\)",
        ),
        ({"train": "abc", "val": "abc", "test": "abc"}, FOUR, r"holds both val.txt and test.txt"),
        ({"a": "abc", "b": "abc"}, FOUR, r"holds 2 .txt files \(a.txt, b.txt\): must be one, or train.txt with"),
        ({"train": "abc", "b": "abc"}, FOUR, r"holds 2 .txt files"),
    ],
)
def test_what_is_wrong_with_a_text_is_one_line(tmp_path, texts, reading, message):
    write(tmp_path, **texts)
    with pytest.raises(DataError, match=message) as error:
        TEXT.open(tmp_path, reading)
    assert "\n" not in str(error.value)


def test_bytes_need_no_utf_8_and_know_every_byte(tmp_path):
    write(tmp_path, train=b"abc\xff" * 9, val=b"\x00\xfe\xc3" * 9)
    splits = TEXT.open(tmp_path, BYTES)
    assert splits.num_classes == 256
    assert splits.test.part(slice(1))[0].tolist() == [[0, 0xFE, 0xC3, 0]]


def test_a_missing_folder_is_one_line(tmp_path, monkeypatch):
    monkeypatch.delenv("BATCHSCALE_DATA", raising=False)
    with pytest.raises(DataError, match=r"data.name=text: no folder is named; give it with --data DIR"):
        TEXT.open(None, FOUR)
    with pytest.raises(DataError, match=r"data.name=shakespeare: no input.txt in .*tinyshakespeare"):
        SHAKESPEARE.open(tmp_path, FOUR)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["data={name: topics}"], r"data.sequence is missing: say how many tokens an example has"),
        (["data={name: topics, sequence: 0}"], r"data.sequence=0"),
        (["data.sequence=8"], r"data.sequence is for texts, and data.name=digits is none"),
        (["data.tokens=bytes"], r"data.tokens is for texts"),
        (["data={name: topics, sequence: 8, augment: {flip: true}}"], r"data.augment is for images"),
        (["data={name: topics, sequence: 8}"], r"model.name=cnn: needs images"),
    ],
)
def test_entries_of_a_text_are_checked(overrides, message):
    with pytest.raises(RecipeError, match=message):
        batchscale.train("digits-cnn", overrides, quiet=True)


def test_a_text_shorter_than_a_minibatch_is_one_line(tmp_path):
    write(tmp_path, book="to be or not to be " * 80)
    with pytest.raises(RecipeError, match="minibatch") as error:
        batchscale.train("topics-transformer", ["data.name=text", "minibatch.workers=64"], data_folder=tmp_path)
    assert "\n" not in str(error.value)


def test_topics_are_held_out_whole():
    from pydoc_data.topics import topics

    text = TOPICS.texts(None, Reading())
    train, test = text.train.decode(), text.test.decode()
    assert len(train) + len(test) == sum(map(len, topics.values()))
    held = [name for name in topics if topics[name] in test]
    assert sum(len(topics[name]) for name in held) == len(test)
    assert not [name for name in held if topics[name] in train]
    assert len(held) == round(0.1 * len(topics))


def test_data_check_tells_lengths_and_vocabulary(tmp_path, capsys):
    write(tmp_path, book="abcd" * 50)
    assert main(["data", "check", "text", "--data", str(tmp_path), "--json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["data"]
    assert (row["train_tokens"], row["test_tokens"], row["vocabulary"]) == (180, 20, "abcd")
    assert main(["data", "check", "text", "--data", str(tmp_path)]) == 0
    assert "text: 180 training and 20 test characters, 4 different ones" in capsys.readouterr().out
    write(tmp_path, book=b"\xff")
    assert main(["data", "check", "text", "--data", str(tmp_path)]) == 2
    assert "is not UTF-8 at byte 0" in capsys.readouterr().err
    assert main(["data", "prepare", "text", "--data", str(tmp_path)]) == 2


def test_shakespeare_is_read_as_it_lies(data_folder):
    if not (data_folder / "tinyshakespeare").is_dir():
        pytest.skip(f"no tinyshakespeare in {data_folder}")
    splits = SHAKESPEARE.open(data_folder, Reading(sequence=64))
    assert (len(splits.train), len(splits.test), splits.num_classes) == (15_685, 1_742, 65)
    vocabulary = splits.contents["training vocabulary"]
    assert told(splits.train.select(np.array([0])), vocabulary).startswith("First Citizen:\nBefore we proceed")
