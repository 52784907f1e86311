"""Files of labels in each format."""

import pytest

from mlproject.errors import UserError
from mlproject.versions import label_files

DAISY, TULIP = "daisy", "tulip, red"


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "daisy\ntulip, red\n"),
        ("a.txt", "\ufeffdaisy\r\n tulip, red \r\n\r\n\n"),
        ("a.csv", 'index,name\n1,"tulip, red"\n0,daisy\n'),
        ("a.csv", '\ufefflabel,index\n"tulip, red",1\ndaisy,0\n'),
        ("a.csv", '0,daisy\n1,"tulip, red"\n'),
        ("a.csv", '"tulip, red",1\n\ndaisy,0\n\n'),
        ("a.csv", "0; daisy\n1; tulip, red\n"),
        ("a.tsv", "daisy\t0\ntulip, red\t1\n"),
        ("a.txt", "class_index;wnid;label;short\n0;n1;daisy;d\n1;n2;tulip, red;t\n"),
        ("a.csv", ',id,label\n0,70,daisy\n1,80,"tulip, red"\n'.replace(",id", "index,id")),
        ("a.csv", 'label,wnid\ndaisy,n1\n"tulip, red",n2\n'),
        ("a.csv", 'label\ndaisy\n"tulip, red"\n'),
        ("a.csv", "label\ndaisy\ntulip, red\n"),
        ("a.json", '["daisy", "tulip, red"]'),
        ("a.json", '\ufeff{"1": "tulip, red", "0": "daisy"}'),
        ("a.json", '{"0": ["n01", "daisy"], "1": ["n02", "tulip, red"]}'),
        ("a.json", '{"daisy": 0, "tulip, red": 1}'),
    ],
)
def test_labels_are_read_in_the_order_of_the_outputs(name, text, tmp_path):
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert [DAISY, TULIP] == label_files.read(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0\n1\n2\n", ["0", "1", "2"]),
        ("label\nindex\n", ["label", "index"]),
        ("[none]\n[other]\n", ["[none]", "[other]"]),
        ("tench, Tinca tinca\ngoldfish, Carassius auratus\n", None),
        ("one, two, three\nfour\n", None),
    ],
)
def test_lines_that_look_like_another_format_are_labels(text, expected):
    assert (expected or text.splitlines()) == label_files.parse(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "it is empty"),
        ("daisy\n\ntulip\n", "label 1 is empty"),
        ('["daisy", ""]', "label 1 is empty"),
        ("0,daisy\n2,tulip\n", "its 2 labels have no index 1"),
        ("1,daisy\n2,tulip\n", "its 2 labels have no index 0"),
        ("0,daisy\n0,tulip\n", "its 2 labels have no index 1"),
        ("0,daisy\n1,tulip, red\n", "different numbers of columns"),
        ("tulip, red,0\ndaisy,1\n", "different numbers of columns"),
        ("0,5,daisy\n1,6,tulip\n", "no header says which column is 'index'"),
        ("0,daisy,d\n1,tulip,t\n", "no header says which column is 'index', and which 'label'"),
        ('{"0": "daisy", "2": "tulip"}', "have no index 1"),
        ('{"daisy": 0, "tulip": 2}', "have no index 1"),
        ('{"0": 1, "1": 0}', "is not a list of names"),
        ('{"0": "daisy", "x": "tulip"}', "is not a list of names"),
        ('{"daisy": true, "tulip": 0}', "is not a list of names"),
        ("[1, 2]", "is not a list of names"),
        ('{"0": "daisy",', "the JSON is damaged"),
        ('["daisy", "tulip",]', "the JSON is damaged"),
    ],
)
def test_what_is_not_clear_is_refused_in_one_line_that_names_the_file(text, expected, tmp_path):
    path = tmp_path / "labels"
    path.write_text(text)
    with pytest.raises(UserError, match=expected) as refused:
        label_files.read(str(path))
    assert str(refused.value).startswith(f"Labels {str(path)!r} cannot be used: ")
    assert "\n" not in str(refused.value)


def test_a_file_that_cannot_be_read_is_refused(tmp_path):
    (tmp_path / "latin").write_bytes("Gänseblümchen".encode("latin-1"))
    for name in ("latin", "absent"):
        with pytest.raises(UserError, match="cannot be read"):
            label_files.read(str(tmp_path / name))


def test_repeated_names_have_their_output_index_and_one_sentence_tells_it():
    labels = ["crane", "tench", "crane", "maillot", "maillot", "a", "a"]
    expected = ["crane (0)", "tench", "crane (2)", "maillot (3)", "maillot (4)", "a (5)", "a (6)"]
    assert (
        expected,
        "Repeated labels have their output index: 'crane (0)', 'crane (2)', 'maillot (3)', "
        "'maillot (4)' and 2 more",
    ) == label_files.unique(labels)
    assert (["a", "b"], "") == label_files.unique(["a", "b"])


def test_the_public_list_of_imagenet_has_the_names_that_issue_16_asks_for(shared):
    labels = label_files.read(str(shared / "imagenet-sample" / "classes1000.csv"))
    assert (1000, "tench, Tinca tinca") == (len(labels), labels[0])
    repeated = [*labels]
    repeated[134] = repeated[517] = "crane"
    found, note = label_files.unique(repeated)
    assert ("crane (134)", "crane (517)") == (found[134], found[517])
    assert 1000 == len(set(found))
    assert "'crane (134)', 'crane (517)'" in note
