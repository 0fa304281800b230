"""The door is short: README and tutorials have short sentences, one a line."""

import pytest
from support.pages import ROOT, TUTORIALS, prose, sentences, words

README = ROOT / "README.md"
_MOST_WORDS, _LONGEST = 650, 30


@pytest.mark.parametrize("page", [README, *TUTORIALS], ids=lambda page: page.stem)
def test_a_line_is_one_sentence_of_at_most_thirty_words(page):
    lines = list(prose(page))
    assert len(lines) > 10
    for line in lines:
        assert len(sentences(line)) == 1, line
        assert line.rstrip('*")')[-1] in ".:;", line
        assert len(words(line)) <= _LONGEST, line


def test_the_readme_is_about_six_hundred_words():
    assert sum(len(words(line)) for line in prose(README)) <= _MOST_WORDS


def test_sentences_are_told_apart():
    assert len(sentences("A rule (Goyal et al. 2017) holds. It ends.")) == 2
    assert len(sentences("Said `a. B` of kn. `kn` grows.")) == 2
    assert len(sentences("One, e.g. this; no other.")) == 1
    assert words("- a `b c` d - 3") == ["a", "code", "d", "3"]
