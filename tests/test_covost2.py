"""CoVoST 2 joined with Common Voice by us and by SQL; the rules of its tables; tables of our own making."""

from __future__ import annotations

import csv
import io
import shutil
import tempfile
from pathlib import Path

import duckdb
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from manifests import Clip, UserError, load_corpus
from manifests.corpora.covost2 import LANGUAGES, SPLITS

HEADER = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent"
Refused = list[tuple[str, str, str]]


def read(root: Path | str, split: str) -> tuple[list[Clip], Refused]:
    refused: Refused = []
    clips = list(load_corpus("covost2").clips(root, split, lambda *told: refused.append(told)))
    return clips, refused


def join_by_sql(root: Path, voice: Path, language: str, split: str) -> list[tuple[str, ...]]:
    """The rows that get_covost_splits.py makes: an inner join on path, quotes being letters and backslashes escapes."""

    def table(path: Path) -> str:
        # duckdb has no escape without quotes: whole lines are split and unescaped by SQL itself.
        return f"""(select row_number() over () as line, string_split(text, chr(9)) as cells
            from read_csv('{path}', columns={{'text': 'varchar'}}, delim=chr(1), quote='', escape='', header=false))"""

    heads = {path: path.read_text().splitlines()[0].split("\t") for path in (voice / "validated.tsv",)}
    place = {name: heads[voice / "validated.tsv"].index(name) + 1 for name in ("path", "sentence", "client_id")}
    parts = ", ".join(f"'{part}'" for part in SPLITS[split])
    plain = "regexp_replace({}, '\\\\(.)', '\\1', 'g')"
    return duckdb.execute(
        f"""select v.cells[{place["path"]}], {plain.format(f"v.cells[{place['sentence']}]")},
                {plain.format("t.cells[2]")}, v.cells[{place["client_id"]}]
            from {table(voice / "validated.tsv")} v
            join {table(root / f"covost_v2.en_{language}.tsv")} t on v.cells[{place["path"]}] = t.cells[1]
            where t.cells[3] in ({parts}) order by v.line"""
    ).fetchall()


def rows_of(clips: list[Clip], language: str) -> list[tuple[str, ...]]:
    return [
        (f"{c.id.split('/')[1]}.mp3", c.text, c.translations[language], c.speaker.removeprefix("covost2/"))
        for c in clips
        if language in c.translations
    ]


@pytest.fixture(scope="module")
def root(corpora: Path) -> Path:
    return corpora / "covost2"


def write(root: Path, validated: list[str], rows: list[str], language: str = "de", header: str = HEADER) -> Path:
    """A corpus of a few lines."""
    (root / "validated.tsv").write_text("\n".join([header, *validated]) + "\n", encoding="utf-8")
    table = root / f"covost_v2.en_{language}.tsv"
    table.write_text("\n".join(["path\ttranslation\tsplit", *rows]) + "\n", encoding="utf-8")
    return table


def validated(path: str, sentence: str, gender: str = "") -> str:
    return f"c1\t{path}\t{sentence}\t2\t0\t\t{gender}\t"


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("split", SPLITS)
def test_sql_joins_the_same_rows_in_the_same_order(root: Path, split: str, language: str) -> None:
    theirs = join_by_sql(root, root, language, split)
    assert rows_of(read(root, split)[0], language) == theirs
    assert len(theirs) >= 4


@pytest.mark.parametrize("split", SPLITS)
def test_one_clip_serves_all_languages_and_its_audio_is_there(root: Path, split: str) -> None:
    clips, _ = read(root, split)
    assert len({clip.id for clip in clips}) == len(clips)
    for clip in clips:
        assert tuple(clip.translations) == LANGUAGES
        assert soundfile.info(root / clip.audio[0].path).samplerate == 48000


def test_one_clip_is_read_in_full(root: Path) -> None:
    clip = next(clip for clip in read(root, "train")[0] if clip.id == "covost2/common_voice_en_19664034")
    # Quotes are letters: the sentence keeps those of the table that Common Voice made it from.
    assert clip.text == '"These data components in turn serve as the ""building blocks"" of data exchanges."'
    assert clip.translations["de"] == (
        "Diese Datenkomponenten wiederum dienen als die \u201eGrundbausteine\u201c zum Datenaustausch."
    )
    assert clip.translations["zh-CN"].startswith("\u8fd9\u4e9b\u6570\u636e\u7ec4\u4ef6")
    assert [ref.path for ref in clip.audio] == ["clips/common_voice_en_19664034.mp3"]
    assert clip.speaker.startswith("covost2/4f29be8fe932d773") and len(clip.speaker) == len("covost2/") + 128
    assert (clip.language, clip.license, clip.gender) == ("en", "CC0-1.0", "")


def test_a_backslash_escapes(root: Path) -> None:
    clip = next(clip for clip in read(root, "dev")[0] if clip.id == "covost2/common_voice_en_90000005")
    assert clip.translations["de"] == '"Was ist mir geschehen?"'
    assert '\\"Was ist mir geschehen?\\"' in (root / "covost_v2.en_de.tsv").read_text()


@pytest.mark.parametrize("sentence", ["null", "NA", "NaN", "None", "nan", '"', '""', "'", "#1"])
def test_no_sentence_is_taken_for_an_absent_value(tmp_path: Path, sentence: str) -> None:
    write(tmp_path, [validated("a.mp3", sentence)], [f"a.mp3\t{sentence}\ttrain"])
    clip = read(tmp_path, "train")[0][0]
    assert (clip.text, clip.translations) == (sentence, {"de": sentence})


def test_train_takes_train_covost_and_nobody_takes_test_covost(root: Path) -> None:
    ids = {split: {clip.id for clip in read(root, split)[0]} for split in SPLITS}
    assert {"covost2/common_voice_en_90000003", "covost2/common_voice_en_90000004"} <= ids["train"]
    assert "covost2/common_voice_en_90000009" not in set().union(*ids.values())
    assert "common_voice_en_90000009.mp3" in (root / "covost_v2.en_ja.tsv").read_text()


def test_a_translated_clip_that_is_not_validated_is_refused(root: Path) -> None:
    told = [told[:2] for told in read(root, "train")[1]]
    assert told == [("not_validated", "covost2/common_voice_en_90000010")]
    assert not read(root, "dev")[1] and not read(root, "test")[1]


def test_genders_are_those_of_the_speakers(root: Path, tmp_path: Path) -> None:
    told = {clip.id: clip.gender for split in SPLITS for clip in read(root, split)[0]}
    assert told["covost2/common_voice_en_90000006"] == "female"
    assert told["covost2/common_voice_en_699711"] == ""
    given = {"male": "male", "female": "female", "other": "", "male_masculine": "male", "female_feminine": "female"}
    rows = [validated(f"{name}.mp3", "Hi.", name) for name in given]
    write(tmp_path, rows, [f"{name}.mp3\tHallo.\ttest" for name in given])
    assert {clip.id.split("/")[1]: clip.gender for clip in read(tmp_path, "test")[0]} == given


@pytest.mark.parametrize("folder", ["cv-corpus-4-2019-12-10/en", "cv-corpus-4/en", "cv-corpus-6.1-2020-12-11/en", "en"])
def test_every_layout_of_common_voice_is_found(root: Path, tmp_path: Path, folder: str) -> None:
    place = tmp_path / folder
    place.mkdir(parents=True)
    shutil.copy(root / "validated.tsv", place)
    (place / "clips").symlink_to(root / "clips", target_is_directory=True)
    shutil.copy(root / "covost_v2.en_de.tsv", tmp_path)
    # A translation may lie beside the clips too.
    shutil.copy(root / "covost_v2.en_ja.tsv", place)
    for clip, flat in zip(read(tmp_path, "test")[0], read(root, "test")[0], strict=True):
        assert clip.id == flat.id
        assert clip.audio[0].path == f"{folder}/{flat.audio[0].path}"
        assert (tmp_path / clip.audio[0].path).is_file()
        assert tuple(clip.translations) == ("de", "ja")


def test_of_several_versions_the_fourth_is_read(tmp_path: Path) -> None:
    for release in ("cv-corpus-10.0-2022-07-04", "cv-corpus-4-2019-12-10", "cv-corpus-40-2030-01-01"):
        (tmp_path / release / "en").mkdir(parents=True)
        (tmp_path / release / "en/validated.tsv").write_text(f"{HEADER}\n{validated('a.mp3', release)}\n")
    (tmp_path / "covost_v2.en_de.tsv").write_text("path\ttranslation\tsplit\na.mp3\tHallo.\tdev\n")
    assert [clip.text for clip in read(tmp_path, "dev")[0]] == ["cv-corpus-4-2019-12-10"]


@pytest.mark.parametrize(
    "columns", [["path", "sentence", "client_id"], ["client_id", "path", "sentence", "x", "locale"]]
)
def test_the_columns_of_validated_may_be_fewer_and_in_any_order(tmp_path: Path, columns: list[str]) -> None:
    values = {"path": "a.mp3", "sentence": "Hi.", "client_id": "c9"}
    row = "\t".join(values.get(column, "?") for column in columns)
    write(tmp_path, [row], ["a.mp3\tHallo.\tdev"], header="\t".join(columns))
    clip = read(tmp_path, "dev")[0][0]
    assert (clip.text, clip.speaker, clip.gender) == ("Hi.", "covost2/c9", "")


def test_a_clip_that_one_language_lacks_keeps_the_others(tmp_path: Path) -> None:
    write(tmp_path, [validated("a.mp3", "Hi."), validated("b.mp3", "Yes.")], ["a.mp3\tHallo.\tdev"])
    write(tmp_path, [validated("a.mp3", "Hi."), validated("b.mp3", "Yes.")], ["b.mp3\tHai.\tdev"], language="ja")
    assert [clip.translations for clip in read(tmp_path, "dev")[0]] == [{"de": "Hallo."}, {"ja": "Hai."}]


@pytest.mark.parametrize(
    "row",
    [
        "a.mp3\tHallo.",
        "b.mp3\tHallo.\tdev\tmore",
        "b.mp3\t\tdev",
        "b.mp3\tHallo.\tvalidation",
        "../b.mp3\tHallo.\tdev",
        "\tHallo.\tdev",
        "a.mp3\tNoch einmal.\tdev",
        "b.mp3\tHal\rlo.\tdev",
        "b.mp3\t" + "x" * 200000 + "\tdev",
    ],
)
def test_a_damaged_translation_is_refused_with_its_line_and_the_rest_is_read(tmp_path: Path, row: str) -> None:
    write(tmp_path, [validated("a.mp3", "Hi."), validated("z.mp3", "Bye.")], [])
    rows = ["path\ttranslation\tsplit", "a.mp3\tHallo.\tdev", row, "z.mp3\tBis bald.\tdev", ""]
    (tmp_path / "covost_v2.en_de.tsv").write_bytes("\n".join(rows).encode())
    clips, refused = read(tmp_path, "dev")
    assert [clip.text for clip in clips] == ["Hi.", "Bye."]
    assert clips[0].translations == {"de": "Hallo."}
    assert [told[:2] for told in refused] == [("malformed_row", "covost2/covost_v2.en_de.tsv:3")]


@pytest.mark.parametrize("row", [b"c1\tb.mp3\tHi", b"c1\tb.mp3\t\xff\xfe\t2\t0\t\t\t", b"c1\tb.mp3\t\t2\t0\t\t\t"])
def test_a_damaged_row_of_validated_is_refused_with_its_line_and_the_rest_is_read(tmp_path: Path, row: bytes) -> None:
    write(tmp_path, [], ["a.mp3\tHallo.\tdev", "b.mp3\tHallo.\tdev", "z.mp3\tBis bald.\tdev"])
    rows = [HEADER, validated("a.mp3", "Hi."), "?", validated("z.mp3", "Bye."), ""]
    (tmp_path / "validated.tsv").write_bytes("\n".join(rows).encode().replace(b"?", row))
    clips, refused = read(tmp_path, "dev")
    assert [clip.text for clip in clips] == ["Hi.", "Bye."]
    assert refused[0][:2] == ("malformed_row", "covost2/validated.tsv:3")
    assert {told[0] for told in refused[1:]} <= {"not_validated"}


def test_a_byte_order_mark_windows_line_ends_and_empty_lines_change_nothing(root: Path, tmp_path: Path) -> None:
    for table in root.glob("*.tsv"):
        content = table.read_bytes().replace(b"\n", b"\r\n") + b"\r\n"
        (tmp_path / table.name).write_bytes(b"\xef\xbb\xbf" + content)
    assert read(tmp_path, "dev") == read(root, "dev")


@pytest.mark.parametrize("content", [b"", b"<html>404</html>\n", b"path,translation,split\n", b"\xff\xfe\n", b"a\rb\n"])
@pytest.mark.parametrize("name", ["validated.tsv", "covost_v2.en_de.tsv"])
def test_a_table_of_another_kind_is_a_sentence_that_names_it(tmp_path: Path, name: str, content: bytes) -> None:
    write(tmp_path, [validated("a.mp3", "Hi.")], ["a.mp3\tHallo.\tdev"])
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=name.replace(".", r"\.")):
        read(tmp_path, "dev")


def test_missing_files_say_where_they_come_from(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no validated\.tsv .*Common Voice Corpus 4"):
        read(tmp_path, "dev")
    (tmp_path / "validated.tsv").write_text(f"{HEADER}\n")
    with pytest.raises(UserError, match=r"no covost_v2\.en_zh-CN\.tsv .*dl\.fbaipublicfiles\.com/covost"):
        read(tmp_path, "dev")


words = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\n\t"), min_size=1, max_size=12)
texts = words | st.sampled_from(['"', '"a ""b"" c"', "\\", "a\\", "NA", "null", "\u2028", "\0", "\x85"])


@given(
    st.dictionaries(
        st.integers(0, 999),
        st.tuples(
            texts, st.dictionaries(st.sampled_from(LANGUAGES), texts), st.sampled_from([*SPLITS, "train_covost"])
        ),
        max_size=5,
    )
)
def test_any_table_that_the_official_writer_makes_is_read_back_exactly(world: dict) -> None:
    def table(header: list[str], rows: list[tuple[str, ...]]) -> bytes:
        # The settings of save_df_to_tsv in get_covost_splits.py; the csv module is what pandas writes with.
        text = io.StringIO(newline="")
        style = {"delimiter": "\t", "escapechar": "\\", "quoting": csv.QUOTE_NONE, "lineterminator": "\n"}
        csv.writer(text, **style).writerows([header, *rows])
        return text.getvalue().encode()

    with tempfile.TemporaryDirectory() as folder:
        rows = [(f"{number}.mp3", sentence, "c") for number, (sentence, _, _) in world.items()]
        Path(folder, "validated.tsv").write_bytes(table(["path", "sentence", "client_id"], rows))
        for language in LANGUAGES:
            rows = [(f"{n}.mp3", told[language], split) for n, (_, told, split) in world.items() if language in told]
            Path(folder, f"covost_v2.en_{language}.tsv").write_bytes(table(["path", "translation", "split"], rows))
        for split, parts in SPLITS.items():
            clips, refused = read(folder, split)
            assert not refused
            assert [(clip.id, clip.text, clip.translations) for clip in clips] == [
                (f"covost2/{number}", sentence, {name: told[name] for name in LANGUAGES if name in told})
                for number, (sentence, told, part) in world.items()
                if part in parts and told
            ]


@pytest.mark.slow
def test_the_real_rows_are_all_read(real_corpora: Path) -> None:
    root = real_corpora / "covost2"
    for split in SPLITS:
        clips, refused = read(root, split)
        assert len(clips) == 2 and not refused
        for language in LANGUAGES:
            assert rows_of(clips, language) == join_by_sql(root, root / "cv-corpus-4/en", language, split)
