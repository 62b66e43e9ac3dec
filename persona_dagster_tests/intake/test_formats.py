"""Every format from a file to rows: made by the real writers (Polars, sqlite3, datasets, zipfile, nbformat,
matplotlib's PDF) or after its schema (DOCX: ECMA-376, HTML and Obsidian as people write them).

LINE's text follows the app's own export, Discord's JSON and CSV DiscordChatExporter 2.43's documented shape.
"""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import sqlite3
import zipfile
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest

from persona_dagster.intake.file_formats import Options
from persona_dagster.intake.import_files import Consents, lay_out, look_at
from persona_dagster.intake.mapping import Mappings, guess, read_mapping
from persona_dagster.intake.notes import parse_note, read_notes
from persona_dagster.intake.open_and_decode import IntakeError, encoding_of
from persona_dagster_tests.intake.conftest import Home

ROWS = [
    {
        "文章編號": f"M.16000000{n:02d}.A.ABC",
        "標題": f"[問題] 第{n}個",
        "內容": f"主管把第{n}個鍋甩給我",
        "時間": f"2021/3/{n + 1} 下午2:30",
    }
    for n in range(12)
]  # fmt: skip
FRAME = pl.DataFrame(ROWS)


def csv(path: Path, sign: str = ",", codec: str = "utf-8") -> None:
    path.write_bytes(FRAME.write_csv(separator=sign).encode(codec))


def sqlite(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE posts (文章編號 TEXT, 標題 TEXT, 內容 TEXT, 時間 TEXT)")
    connection.executemany("INSERT INTO posts VALUES (?, ?, ?, ?)", FRAME.rows())
    connection.commit()
    connection.close()


WRITERS: dict[str, Callable[[Path], object]] = {
    "a.jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8"),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), encoding="utf-8"),
    "nested.json": lambda path: path.write_text(json.dumps({"articles": ROWS}), encoding="utf-8"),
    "columns.json": lambda path: path.write_text(json.dumps(FRAME.to_dict(as_series=False)), encoding="utf-8"),
    "a.csv": csv,
    "big5.csv": lambda path: csv(path, codec="cp950"),
    "gb.csv": lambda path: csv(path, codec="gb18030"),
    "utf16.csv": lambda path: csv(path, codec="utf-16"),
    "bom.csv": lambda path: csv(path, codec="utf-8-sig"),
    "a.tsv": lambda path: csv(path, "\t"),
    "semicolon.csv": lambda path: csv(path, ";"),
    "a.parquet": FRAME.write_parquet,
    "a.arrow": lambda path: FRAME.write_ipc(path, compression="uncompressed"),
    "a.xlsx": FRAME.write_excel,
    "a.sqlite": sqlite,
    "a.csv.gz": lambda path: path.write_bytes(gzip.compress(FRAME.write_csv().encode())),
    "a.csv.xz": lambda path: path.write_bytes(lzma.compress(FRAME.write_csv().encode())),
    "a.csv.bz2": lambda path: path.write_bytes(bz2.compress(FRAME.write_csv().encode())),
    "a.zip": lambda path: zipped(path, {"inner/a.csv": FRAME.write_csv().encode("cp950"), "README.txt": b"see a.csv"}),
}


def zipped(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in members.items():
            archive.writestr(name, body)


@pytest.mark.parametrize("name", WRITERS)
def test_a_table_of_any_kind_gives_the_same_posts(home: Home, name: str) -> None:
    path = home.put(f"ptt_Salary/{name}", b"")
    path.unlink()
    WRITERS[name](path)
    done = home.take_in()
    assert (done.problems, done.fates) == ([], {"stored": 12})
    posts = home.posts()
    assert [(post.post_id, post.title, post.text_raw) for post in posts] == [
        (row["文章編號"], row["標題"], row["內容"]) for row in ROWS
    ]
    assert posts[0].created_at and posts[0].created_at.isoformat() == "2021-03-01T06:30:00+00:00"


def test_a_hugging_face_folder(home: Home) -> None:
    from datasets import Dataset

    Dataset.from_list(ROWS).save_to_disk(str(home.settings.imports_dir / "ptt_set"))
    assert home.take_in().fates == {"stored": 12}


def test_comments_within_their_posts(home: Home) -> None:
    """jwlin's ptt-web-crawler, the form in which most PTT dumps are passed on."""
    article = {
        "article_id": "M.1600000000.A.ABC", "article_title": "[抱怨] 主管", "author": "kitty (貓)", "board": "Hate",
        "content": "又甩鍋", "date": "Sun Sep 13 20:26:40 2020", "ip": "203.0.113.9",
        "messages": [
            {"push_content": "推推", "push_ipdatetime": "09/13 20:30", "push_tag": "推", "push_userid": "dog99"},
        ],
    }  # fmt: skip
    home.put("a.json", json.dumps({"articles": [article]}))
    assert home.take_in().fates == {"stored": 1}
    post, push = home.posts()
    assert (push.parent_id, push.text_raw) == (post.post_id, "推 <user>: 推推 09/13 20:30") and post.board == "Hate"


ANSWER = "Gradient descent walks down the slope of the loss, one small step at a time."


def notebook(path: Path) -> None:
    import nbformat
    from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

    cells = [new_markdown_cell(f"# 什麼是梯度下降？\n\n{ANSWER}"), new_code_cell("x -= rate * gradient")]
    nbformat.write(new_notebook(cells=cells), path)


def pdf(path: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"pdf.fonttype": 42}):
        figure = Figure(figsize=(8, 2))
        figure.text(0.01, 0.5, ANSWER)
        figure.savefig(path)


def docx(path: Path) -> None:
    """The least that ECMA-376 takes for a document."""
    office = "http://schemas.openxmlformats.org"
    kind = "application/vnd.openxmlformats-officedocument.wordprocessingml.document.main+xml"
    heading = '<w:p><w:pPr><w:pStyle w:val="Heading1"/></w:pPr><w:r><w:t>什麼是梯度下降？</w:t></w:r></w:p>'
    body = f"{heading}<w:p><w:r><w:t>{ANSWER}</w:t></w:r></w:p>"
    zipped(
        path,
        {
            "[Content_Types].xml": f'<Types xmlns="{office}/package/2006/content-types"><Default Extension="rels" '
            'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
            f'<Override PartName="/word/document.xml" ContentType="{kind}"/></Types>'.encode(),
            "_rels/.rels": f'<Relationships xmlns="{office}/package/2006/relationships"><Relationship Id="a" Type='
            f'"{office}/officeDocument/2006/relationships/officeDocument" Target="word/document.xml"/>'
            "</Relationships>".encode(),
            "word/document.xml": f'<w:document xmlns:w="{office}/wordprocessingml/2006/main"><w:body>{body}</w:body>'
            "</w:document>".encode(),
        },
    )


HTML = f"<html><body><nav>首頁</nav><article><h1>什麼是梯度下降？</h1><p>{ANSWER}</p></article></body></html>"
VAULT = f"---\ntags: [ml]\n---\n#機器學習\n# 什麼是梯度下降？\n> [!note] {ANSWER}\n見 [[損失函數|損失]]\n"
NOTES: dict[str, Callable[[Path], object]] = {
    "n.ipynb": notebook,
    "n.html": lambda path: path.write_text(HTML, encoding="utf-8"),
    "n.docx": docx,
    "什麼是梯度下降？.pdf": pdf,
    "什麼是梯度下降？.md": lambda path: path.write_text(ANSWER, encoding="utf-8"),
    "什麼是梯度下降？.txt": lambda path: path.write_text(ANSWER, encoding="utf-16"),
    "n.md.gz": lambda path: path.write_bytes(gzip.compress(f"##什麼是梯度下降？\n{ANSWER}".encode())),
    "vault.zip": lambda path: zipped(path, {"v/.obsidian/app.json": b"{}", "v/n.md": VAULT.encode()}),
    "qa.jsonl": lambda path: path.write_text(json.dumps({"question": "什麼是梯度下降？", "answer": ANSWER})),
}


@pytest.mark.parametrize("name", NOTES)
def test_a_note_of_any_kind_asks_and_answers(home: Home, tmp_path: Path, name: str) -> None:
    (tmp_path / "desk" / "sub").mkdir(parents=True)
    NOTES[name](tmp_path / "desk" / "sub" / name)
    look = look_at(tmp_path / "desk", Options(), Mappings(home.settings.mappings_dir))
    assert not look.problems
    (laid,) = lay_out(look, home.settings, Options())[1]
    assert laid.is_relative_to(home.settings.notes_dir)
    (capture,) = read_notes(home.settings.notes_dir)
    (post,) = parse_note(capture, str).posts
    assert post.title == "什麼是梯度下降？" and ANSWER in post.text_raw.replace("\n", " ")
    assert "[[" not in post.text_raw and "首頁" not in post.text_raw


def test_questions_with_answers_in_a_table(home: Home) -> None:
    home.put("qa.csv", f"question,answer\n什麼是梯度下降？,{ANSWER}\n".replace("loss, one", "loss one"))
    assert home.take_in().fates == {"stored": 1}
    (post,) = home.posts("notes")
    assert (post.title, post.kind) == ("什麼是梯度下降？", "post")


LINE = """[LINE] 與小明的聊天記錄
儲存日期：2024/03/05 22:10

2024/03/04（一）
10:00\t小明\t我今天被主管罵了，小華你在嗎
10:01\t小華\t抱抱，你已經很努力了
10:02\t小華\t[貼圖]
10:05\t小明\t"謝謝你
真的"

2024/03/06（三）
下午3:00\t小華\t早安
"""


def test_a_line_chat_becomes_a_conversation_with_speakers(home: Home) -> None:
    home.put("line.txt", LINE)
    assert home.take_in().fates == {"stored": 4, "refused": 1}
    first, answer, thanks, later = home.posts("chat")
    assert (answer.parent_id, thanks.parent_id, later.parent_id) == (first.post_id, answer.post_id, None)
    assert thanks.text_raw == "謝謝你\n真的" and "小華" not in first.text_raw and first.author_key == thanks.author_key
    assert later.created_at and later.created_at.isoformat() == "2024-03-06T07:00:00+00:00"


def test_a_discord_chat(home: Home) -> None:
    def message(number: int, who: str, text: str, **more: object) -> dict[str, object]:
        at = f"2024-03-04T10:0{number}:00.000+00:00"
        return {
            "id": str(number),
            "type": "Default",
            "timestamp": at,
            "content": text,
            "author": {"id": who, "isBot": who == "b"},
        } | more

    messages = [
        message(1, "x", "有人懂 BERT 嗎"),
        message(2, "b", "機器人"),
        message(3, "y", "我懂"),
        message(4, "x", "太好了", type="Reply", reference={"messageId": "3"}),
    ]
    home.put(
        "d.json", json.dumps({"guild": {"name": "NLP"}, "channel": {"id": "1", "name": "help"}, "messages": messages})
    )
    home.put(
        "d.csv",
        "AuthorID,Author,Date,Content,Attachments,Reactions\n1,x,2024-03-04T10:00:00,哈囉,,\n2,y,2024-03-04T10:01:00,你好,,\n",
    )
    assert home.take_in().fates == {"stored": 5, "refused": 1}
    assert {post.parent_id for post in home.posts("chat") if post.text_raw == "太好了"} == {"3"}


def test_the_guess_is_shown_settled_and_used_again(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "ptt_dump.csv"
    csv(path, codec="cp950")
    look = look_at(path, Options(), Mappings(home.settings.mappings_dir))
    (seen,) = look.streams
    assert (seen.stream.format, seen.stream.encoding, seen.stream.delimiter) == ("CSV", "cp950", ",")
    assert seen.stream.mapping and seen.stream.mapping.fields["text"] == "內容" and len(seen.first) == 3
    lay_out(look, home.settings, Options())
    (mapping,) = home.settings.mappings_dir.glob("*.yaml")
    assert read_mapping(mapping) == seen.stream.mapping
    mapping.write_text(mapping.read_text(encoding="utf-8").replace("source: ptt", "source: dcard"), encoding="utf-8")
    home.take_in()
    assert len(home.posts("dcard")) == 12 and not home.posts("ptt")


def test_consent_is_recorded_once(home: Home, tmp_path: Path) -> None:
    path = tmp_path / "line.txt"
    path.write_text(LINE, encoding="utf-8")
    look, consents = look_at(path, Options(), Mappings(home.settings.mappings_dir)), Consents(home.settings)
    assert len(consents.missing(look)) == 1
    consents.record(look)
    assert consents.missing(look) == [] and "小明" not in consents.path.read_text(encoding="utf-8")


def test_what_cannot_be_guessed_is_asked_for() -> None:
    with pytest.raises(IntakeError, match=r"which site it is from\. Give --source"):
        guess([{"text": "一段話"}], "x.csv")
    with pytest.raises(IntakeError, match="no column holds text"):
        guess([{"a": 1}], "ptt.csv")
    with pytest.raises(IntakeError, match="has no column nope"):
        guess([{"text": "一段話"}], "ptt.csv", given={"text": "nope"})
    mixed = [{"text": "一段話"}, {"text": {"a": 1}}, {"text": {"a": 1}}, {"text": None}]
    assert guess(mixed, "ptt.jsonl").fields == {"text": "text"}, "rows without text are refused one by one"
    mapping = guess([{"x": "一段夠長的話"}], "x.csv", given={"source": "PTT", "text": "x"})
    assert mapping.source == "ptt"


@pytest.mark.parametrize("codec", ["utf-8", "cp950", "gb18030", "utf-16", "utf-16-le", "utf-8-sig"])
def test_encodings(codec: str) -> None:
    text = "標題,內容\n失戀了怎麼辦,今天跟男友分手，心情很差\n" * 20
    found = encoding_of(text.encode(codec))
    assert text.encode(codec).decode(found).lstrip("\ufeff") == text
